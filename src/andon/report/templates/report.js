"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  // Tables sort by the column whose head is pressed: figures largest first, names from A; a second press turns round.
  const keyOf = (row, index) => {
    const cell = row.cells[index];
    if (cell.tagName === "TH") return cell.textContent.trim();
    return "value" in cell.dataset ? Number(cell.dataset.value) : null;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null); // what has no figure stays last
    return sign * (typeof a === "string" ? a.localeCompare(b, undefined, {numeric: true}) : a - b);
  };
  for (const table of all("table[data-sortable]")) {
    const heads = all("thead th", table);
    heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
      const first = index === 0 ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((h) => h.setAttribute("aria-sort", h === head ? order : "none"));
      const sign = order === "ascending" ? 1 : -1;
      for (const body of all("tbody[data-rows]", table)) {
        const rows = Array.from(body.rows).map((row, place) => ({row, place, key: keyOf(row, index)}));
        rows.sort((a, b) => compare(a.key, b.key, sign) || a.place - b.place);
        body.append(...rows.map((r) => r.row));
      }
    }));
  }

  // Galleries: how strongly heat maps lie over the pictures, and outlines; all galleries follow.
  const sliders = all("[data-opacity]"), boxes = all("[data-outlines]");
  for (const slider of sliders) slider.addEventListener("input", () => {
    document.documentElement.style.setProperty("--heat", String(slider.value / 100));
    for (const other of sliders) other.value = slider.value;
  });
  for (const box of boxes) box.addEventListener("change", () => {
    document.documentElement.classList.toggle("no-outlines", !box.checked);
    for (const other of boxes) other.checked = box.checked;
  });

  // Experiments: every word typed has to occur in the line.
  const filter = document.getElementById("filter"), matches = document.getElementById("matches");
  const experiments = all(".experiment").map((e) => ({
    element: e, text: e.querySelector("summary").textContent.replace(/\s+/g, " ").toLowerCase()
      + (e.classList.contains("is-failed") ? " failed" : " finished")
  }));
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const {element, text} of experiments) {
      element.hidden = !words.every((word) => text.includes(word));
      shown += element.hidden ? 0 : 1;
    }
    matches.textContent = `${shown} of ${experiments.length}`;
  };
  filter.addEventListener("input", apply);
  apply();

  // On paper nothing is folded but the list of experiments.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not(.experiment):not([open])");
    for (const d of opened) d.open = true;
  });
  addEventListener("afterprint", () => { for (const d of opened) d.open = false; });
})();
