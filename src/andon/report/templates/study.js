"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  // How strongly heat maps lie over the images, and outlines.
  for (const slider of all("[data-opacity]")) slider.addEventListener("input", () => {
    document.documentElement.style.setProperty("--heat", String(slider.value / 100));
  });
  for (const box of all("[data-outlines]")) box.addEventListener("change", () => {
    document.documentElement.classList.toggle("no-outlines", !box.checked);
  });

  // An experiment that is pointed at is in a folded list.
  const reveal = () => {
    const target = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
    const folded = target?.closest("details:not([open])");
    if (folded) { folded.open = true; target.scrollIntoView({block: "center"}); }
  };
  addEventListener("hashchange", reveal);
  reveal();

  const theme = document.getElementById("theme");
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // The contents mark where the reader is.
  const links = new Map(all("nav.side a").map((a) => [a.getAttribute("href").slice(1), a]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      for (const link of links.values()) link.classList.remove("here");
      links.get(entry.target.id)?.classList.add("here");
    }
  }, {rootMargin: "-10% 0px -80% 0px"});
  for (const id of links.keys()) {
    const target = document.getElementById(id);
    if (target) watcher.observe(target);
  }

  for (const control of all(".controls, .theme")) control.hidden = false;
})();
