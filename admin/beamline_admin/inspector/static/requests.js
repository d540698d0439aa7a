// Pausing the list, and watching: a watch makes routers publish the trails of new requests for a while, and each
// then brings the list up to date (refresh.js).
import { call } from "./fetching.js";
import { refresh } from "./refresh.js";

const KEY = "beamline-watch-until";
const list = document.getElementById("requests");
const pause = document.getElementById("pause");
const form = document.getElementById("watch");
const state = document.getElementById("watch-state");
const note = document.getElementById("watch-note");
const idle = note?.textContent;
let timer = 0;

pause.hidden = false;
pause.addEventListener("click", () => {
  const paused = pause.getAttribute("aria-pressed") !== "true";
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Resume" : "Pause";
  if (paused) list.dataset.keep = "";
  else { delete list.dataset.keep; refresh(); }
});

function remember(until) {
  try { sessionStorage.setItem(KEY, until); } catch { /* the page forgets it with its end */ }
}

function watching(until) {
  clearInterval(timer);
  const tell = () => {
    const left = Math.ceil((Date.parse(until) - Date.now()) / 1000);
    if (left > 0) {
      state.textContent = `Watching for ${left >= 120 ? `${Math.ceil(left / 60)} more minutes` : `${left} more seconds`}.`;
      note.textContent = "Requests appear as they come.";
      return;
    }
    clearInterval(timer);
    state.textContent = "The watch is over.";
    note.textContent = idle;
  };
  timer = setInterval(tell, 1_000);
  tell();
}

async function watch(event) {
  event.preventDefault();
  const fields = new FormData(form);
  const asked = { seconds: Number(fields.get("seconds")), sample: Number(fields.get("sample")) };
  if (fields.get("tenant")) asked.tenant = fields.get("tenant");
  if (fields.get("content")) asked.content = true;
  const { ok, body } = await call("/trail/watch", asked);
  if (ok) { remember(body.until); watching(body.until); return; }
  state.textContent = body.title ?? "That did not work.";
  note.textContent = [body.detail, body.hint].filter(Boolean).join(" ");
}

if (form) {
  form.hidden = false;
  form.addEventListener("submit", watch);
  let until = null;
  try { until = sessionStorage.getItem(KEY); } catch { /* no memory, no matter */ }
  if (until && Date.parse(until) > Date.now()) watching(until);
}
