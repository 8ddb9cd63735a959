// The inspect page: sends an image, or follows what the line sends. The server renders; this puts it in its place.
import {wire} from "./layers.js";

const by = (id) => document.getElementById(id);
const form = by("drop"), file = by("file"), send = by("send"), pause = by("pause"), result = by("result");
const error = by("error"), spoken = by("spoken"), following = by("following");
const every = 1500;
let follows = result.dataset.follow === "true", busy = false;

const complain = (text) => {
  error.textContent = text;
  error.hidden = !text;
};

const state = () => {
  pause.setAttribute("aria-pressed", String(!follows));
  pause.textContent = follows ? "Pause the stream" : "Follow the stream";
  following.textContent = follows ? "Following what the line sends." : "Paused.";
};

function show(html) {
  const within = result.contains(document.activeElement) ? document.activeElement.id : null;
  const before = result.firstElementChild?.dataset.shown;
  result.innerHTML = html; // of this server's own templates, which escape
  wire(result);
  if (within) document.getElementById(within)?.focus();
  const now = result.querySelector(".verdict span");
  if (now && result.firstElementChild.dataset.shown !== before) {
    spoken.textContent = now.textContent;
    result.querySelector(".stage")?.classList.add("new");
  }
}

const told = async (answer) => {
  if (answer.status === 401) {
    location.reload();
    return "log in again";
  }
  try {
    const said = await answer.json();
    return said.error?.message ?? `the station answered ${answer.status}`;
  } catch {
    return `the station answered ${answer.status}`;
  }
};

async function inspect() {
  if (!file.files.length || busy) return;
  busy = true;
  follows = false;
  state();
  following.textContent = "Inspecting…";
  complain("");
  try {
    const answer = await fetch(form.action, {method: "POST", body: new FormData(form), headers: {"X-Part": "1"}});
    if (answer.ok) show(await answer.text());
    else complain(await told(answer));
  } catch {
    complain("The station does not answer. Is it still running?");
  } finally {
    busy = false;
    state();
    file.value = ""; // so that the same file can be chosen again
  }
}

async function poll() {
  if (follows && !busy && !document.hidden) {
    const newest = result.firstElementChild?.dataset.newest ?? "0";
    try {
      const answer = await fetch(`${result.dataset.source}&after=${newest}`);
      if (answer.status === 200 && follows) show(await answer.text());
      else if (!answer.ok) throw new Error(await told(answer));
      complain("");
    } catch (reason) {
      complain(reason instanceof TypeError ? "The station does not answer; trying again." : reason.message);
    }
  }
  setTimeout(poll, every);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  inspect();
});
file.addEventListener("change", inspect);
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => {
  event.preventDefault();
  form.classList.add("over");
});
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, (event) => {
  event.preventDefault();
  form.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (event.dataTransfer.files.length) {
    file.files = event.dataTransfer.files;
    inspect();
  }
});
pause.addEventListener("click", () => {
  follows = !follows;
  state();
});
for (const hidden of [by("hint"), pause, following]) hidden.hidden = false;
send.hidden = true; // choosing is enough
state();
wire(result);
setTimeout(poll, every);
