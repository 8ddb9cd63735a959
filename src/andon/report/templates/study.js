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
})();
