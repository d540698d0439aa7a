// One connection to /api/v1/events for the topics that the page asks for (data-topics of <main>).
//
// What arrives is dispatched on `document` as `beamline:<topic>` with the event's data in `detail`; pages that the
// server draws need nothing else, because refresh.js then fetches the page again. The indicator in the bar says how
// the connection is. It is closed while the page can't be seen (a browser allows six per host, for all tabs
// together), and opened again with growing pauses after a fault. `beamline:back` follows every opening but the first:
// something may have been missed.
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const WORDS = { live: "Live", waiting: "Connecting", off: "Not live" };

export const topics = (document.querySelector("main")?.dataset.topics ?? "").split(/\s+/).filter(Boolean);

let source = null;
let pause = FIRST_PAUSE_MS;
let timer = 0;
let opened = 0;

/** Calls `listener(data)` for each event of a topic. */
export function onTopic(topic, listener) {
  document.addEventListener(`beamline:${topic}`, (event) => listener(event.detail));
}

/** Shows the state of the connection: live, waiting or off. */
function show(state) {
  const mark = document.getElementById("live");
  if (!mark || mark.dataset.state === state) return;
  mark.hidden = false;
  mark.dataset.state = state;
  mark.textContent = WORDS[state];
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function open() {
  close();
  show("waiting");
  source = new EventSource(`/api/v1/events?topics=${topics.join(",")}`);
  source.addEventListener("open", () => {
    pause = FIRST_PAUSE_MS;
    show("live");
    opened += 1;
    if (opened > 1) document.dispatchEvent(new CustomEvent("beamline:back"));
  });
  source.addEventListener("error", () => {
    close();
    show("off");
    timer = setTimeout(open, pause * (0.8 + 0.4 * Math.random()));
    pause = Math.min(LONGEST_PAUSE_MS, pause * 2);
  });
  for (const topic of [...topics, "lagged"]) {
    source.addEventListener(topic, (event) => {
      let detail = null;
      try { detail = JSON.parse(event.data); } catch { return; }
      document.dispatchEvent(new CustomEvent(`beamline:${topic}`, { detail }));
    });
  }
}

if (topics.length > 0) {
  open();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); show("waiting"); } else if (!source) { pause = FIRST_PAUSE_MS; open(); }
  });
  addEventListener("pagehide", close);
}
