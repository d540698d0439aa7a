// Brings the regions of a page up to date: every [data-live] element whose topics saw an event is taken from a fresh
// copy of this page. The server draws; this only changes what differs, so focus, selection and open details stay.
import { topics, onTopic } from "./live.js";

const QUIET_MS = 150;   // events that come together make one request
const LEAST_MS = 1_000; // between two requests

const wanted = new Set();
let timer = 0;
let busy = false;
let last = -Infinity;

/** Asks for fresh regions of a topic; `null` for all of them. */
export function refresh(topic = null) {
  wanted.add(topic);
  if (busy || timer) return;
  timer = setTimeout(run, Math.max(QUIET_MS, last + LEAST_MS - performance.now()));
}

async function run() {
  timer = 0;
  busy = true;
  last = performance.now();
  const asked = new Set(wanted);
  wanted.clear();
  try {
    const fresh = await load(location.href);
    if (fresh) {
      for (const region of document.querySelectorAll("[data-live][id]")) {
        const its = region.dataset.live.split(/\s+/);
        if (!asked.has(null) && !its.some((topic) => asked.has(topic))) continue;
        const other = fresh.getElementById(region.id);
        if (other) morph(region, other);
      }
      document.dispatchEvent(new CustomEvent("beamline:refreshed"));
    }
  } finally {
    busy = false;
    if (wanted.size > 0) refresh([...wanted][0]);
  }
}

/** The document at `url`; null where it can't be had, or where we were sent to the login. Its scripts never run. */
export function load(url) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", url);
    request.responseType = "document";
    request.timeout = 15_000;
    request.onload = () => {
      if (new URL(request.responseURL).pathname === "/login") { location.assign("/login"); resolve(null); return; }
      resolve(request.response);
    };
    request.onerror = request.ontimeout = () => resolve(null);
    request.send();
  });
}

/** Makes `old` look like `next`, element by element. [data-keep] belongs to a script and is left alone. */
export function morph(old, next) {
  if (old.isEqualNode(next) || old.dataset?.keep !== undefined) return;
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName || (old.id ?? "") !== (next.id ?? "")) {
    old.replaceWith(document.importNode(next, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value && name !== "hidden") old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== "open" && name !== "hidden") old.removeAttribute(name);
  }
  const mine = [...old.childNodes];
  const theirs = [...next.childNodes];
  theirs.forEach((child, index) => {
    if (index < mine.length) morph(mine[index], child);
    else old.append(document.importNode(child, true));
  });
  for (const child of mine.slice(theirs.length)) child.remove();
}

for (const topic of topics) onTopic(topic, () => refresh(topic));
document.addEventListener("beamline:back", () => refresh());
