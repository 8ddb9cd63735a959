// What every page has, behind its own script: controls are shown only where all of them work.
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

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
