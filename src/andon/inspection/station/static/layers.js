// The layers on an image: opacity of the heat map, and what is shown of the rest. One choice for all images of a page.
const choice = {opacity: 100, boxes: true, ignored: true};

const applied = (root) => {
  for (const heat of root.querySelectorAll("[data-layer=heat]")) heat.style.opacity = String(choice.opacity / 100);
  for (const name of ["boxes", "ignored"])
    for (const layer of root.querySelectorAll(`[data-layer=${name}]`)) layer.style.display = choice[name] ? "" : "none";
};

export function wire(root) {
  for (const slider of root.querySelectorAll("[data-opacity]")) {
    slider.disabled = false;
    slider.value = String(choice.opacity);
    const told = () => {
      choice.opacity = Number(slider.value);
      slider.nextElementSibling.textContent = `${choice.opacity} %`;
      applied(root);
    };
    slider.addEventListener("input", told);
    told();
  }
  for (const box of root.querySelectorAll("[data-shows]")) {
    box.disabled = false;
    box.checked = choice[box.dataset.shows];
    box.addEventListener("change", () => {
      choice[box.dataset.shows] = box.checked;
      applied(root);
    });
  }
  applied(root);
}
