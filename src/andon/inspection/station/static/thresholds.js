// The sliders of the thresholds. What a count means was worked out by the server; this only looks it up.
const {low, high, scores, rows, line} = JSON.parse(document.getElementById("table").textContent);
const by = (id) => document.getElementById(id);
const form = by("thresholds");
const sides = ["stop", "look"];
const value = Object.fromEntries(sides.map((side) => [side, Number(by(`value-${side}`).value)]));
const steps = 1000;

// Row i: where i of the distinct scores are at or below the threshold.
function row(threshold) {
  let from = 0, to = scores.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (scores[middle] <= threshold) from = middle + 1; else to = middle;
  }
  return rows[from];
}

function told(side) {
  const [count, rate] = row(value[side]);
  const means = document.querySelector(`[data-means=${side}]`).textContent;
  const slide = by(`slide-${side}`), x = line.left + (line.right - line.left) * (value[side] - low) / (high - low);
  document.querySelector(`[data-count=${side}]`).textContent = count;
  document.querySelector(`[data-rate=${side}]`).textContent = rate;
  slide.setAttribute("aria-valuetext", `${Number(value[side].toPrecision(4))}: ${count} ${means}`);
  const mark = by(`line-${side}`);
  mark.setAttribute("transform", `translate(${Math.min(line.right, Math.max(line.left, x)).toFixed(2)} 0)`);
}

function set(side, number, from) {
  if (!Number.isFinite(number)) return;
  value[side] = number;
  // The band of look lies below stop: what is pushed goes along.
  const other = side === "stop" ? "look" : "stop";
  const pushed = side === "stop" ? value.look > number : value.stop < number;
  if (pushed) value[other] = number;
  for (const moved of pushed ? sides : [side]) {
    if (moved !== side || from !== "number") by(`value-${moved}`).value = String(value[moved]);
    if (moved !== side || from !== "slide")
      by(`slide-${moved}`).value = String(Math.round(steps * (value[moved] - low) / (high - low)));
    told(moved);
  }
}

for (const side of sides) {
  const slide = by(`slide-${side}`), number = by(`value-${side}`);
  slide.disabled = false;
  slide.addEventListener("input", () => {
    by("rate").value = by("look-rate").value = "";
    set(side, Number((low + (high - low) * Number(slide.value) / steps).toPrecision(6)), "slide");
  });
  number.addEventListener("input", () => number.value && set(side, Number(number.value), "number"));
  told(side);
}
by("rate").addEventListener("change", (event) => event.target.value && set("stop", Number(event.target.value)));
by("look-rate").addEventListener("change", (event) => {
  const chosen = event.target.value;
  if (chosen) set("look", chosen === "stop" ? value.stop : Number(chosen));
});
form.addEventListener("reset", () => setTimeout(() => {
  for (const side of ["look", "stop"]) value[side] = Number(by(`value-${side}`).value);
  for (const side of sides) told(side);
}));
for (const hidden of document.querySelectorAll("[data-needs-script]")) hidden.hidden = false;
