// Runs before the page is painted: the chosen colours, and what works without a choice of its own.
(() => {
  "use strict";
  const root = document.documentElement;
  const kept = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("andon-theme");
      localStorage.setItem("andon-theme", value);
    } catch { /* a browser that keeps nothing */ }
    return null;
  };
  const chosen = kept();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  document.addEventListener("DOMContentLoaded", () => {
    const theme = document.getElementById("theme");
    theme?.addEventListener("click", () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      kept(root.dataset.theme);
    });
    if (theme) theme.hidden = false;
    for (const form of document.querySelectorAll("form[data-submits]")) {
      form.querySelector("[data-goes]").hidden = true;
      form.addEventListener("change", () => form.submit());
    }
    // Who reviews need not type the name each time.
    for (const who of document.querySelectorAll("input[data-remembered]")) {
      try {
        who.value ||= localStorage.getItem("andon-who") ?? "";
        who.form.addEventListener("submit", () => localStorage.setItem("andon-who", who.value));
      } catch { /* likewise */ }
    }
  });
})();
