// What every page has: relative times that stay true, ids that can be copied, filters that apply at once.
import "./live.js";
import "./refresh.js";

const STEPS = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [30 * 86400, 86400, "d"]];

/** As `ago` of spelling.py. */
export function ago(text, now = Date.now()) {
  const seconds = (now - Date.parse(text)) / 1000;
  if (Number.isNaN(seconds)) return text;
  if (seconds < 0) return "just now";
  for (const [limit, unit, word] of STEPS) if (seconds < limit) return `${Math.floor(seconds / unit)} ${word} ago`;
  return new Date(text).toISOString().slice(0, 10);
}

function tick() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = ago(time.dateTime);
    if (time.textContent !== text) time.textContent = text;
  }
}

function equip() {
  for (const button of document.querySelectorAll("button.copy[hidden]")) button.hidden = false;
  tick();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("button.copy");
  if (!button) return;
  try { await navigator.clipboard.writeText(button.dataset.copy); } catch { return; }
  button.dataset.done = "";
  const said = document.getElementById("said");
  if (said) said.textContent = `Copied ${button.dataset.copy}`;
  setTimeout(() => delete button.dataset.done, 1_500);
});

document.addEventListener("change", (event) => {
  const form = event.target.closest?.("form.filters");
  if (form && event.target.matches("select, input[type=checkbox]")) form.requestSubmit();
});

// Fields that say nothing stay out of the address.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form.filters")) return;
  for (const field of form.elements) if (field.name && field.value === "") field.disabled = true;
});
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form.filters :disabled")) field.disabled = false;
});

document.addEventListener("beamline:refreshed", equip);
document.addEventListener("beamline:rows", equip);
setInterval(tick, 15_000);
// On a phone the ways are one line, and the one that is on may stand outside of the window.
const ways = document.querySelector(".ways");
const here = ways?.querySelector("[aria-current]");
if (here) ways.scrollLeft = here.offsetLeft - (ways.clientWidth - here.offsetWidth) / 2;
equip();
