// A long list with few rows in the document. The server gives rows in parts (part=rows&offset=N); those near the
// window stay in the table, two empty bodies hold the place of all others. Every row has the height --row.
//
// Rows that stay are never moved, so focus is kept; parts that scrolled away are dropped, and fetched again.
import { load } from "./refresh.js";
import { topics, onTopic } from "./live.js";

const SIZE = 50;    // rows of a part, as FIRST in rows.py
const AROUND = 15;  // rows beyond the window
const QUIET_MS = 120;

const table = document.querySelector("table.virtual");

class List {
  constructor(table) {
    this.table = table;
    this.body = table.querySelector("#rows");
    this.total = Number(table.dataset.total);
    this.parts = new Map([[Number(table.dataset.offset) / SIZE, [...this.body.rows]]]);   // number -> rows
    this.shown = [...this.parts.keys()];   // without gaps
    this.above = pad();
    this.below = pad();
    this.body.before(this.above);
    this.body.after(this.below);
    this.timer = 0;
    this.busy = false;
    document.querySelector("[data-pager]")?.setAttribute("hidden", "");
    this.place();
    if (this.shown[0] > 0) scrollTo(0, this.top() + this.shown[0] * SIZE * this.height() - 100);   // an old link
    const look = () => requestAnimationFrame(() => this.look());
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", () => { this.place(); look(); }, { passive: true });
    this.look();
  }

  height() { return parseFloat(getComputedStyle(this.table).getPropertyValue("--row")); }
  top() { return this.above.getBoundingClientRect().top + scrollY; }

  /** The parts that the window and its surroundings need, in order. */
  wanted() {
    const height = this.height();
    const first = Math.floor((scrollY - this.top()) / height) - AROUND;
    const last = Math.ceil((scrollY + innerHeight - this.top()) / height) + AROUND;
    const end = Math.max(0, Math.ceil(this.total / SIZE) - 1);
    const from = Math.min(end, Math.max(0, Math.floor(first / SIZE)));
    const to = Math.min(end, Math.max(0, Math.floor(last / SIZE)));
    return Array.from({ length: to - from + 1 }, (_, index) => from + index);
  }

  look() {
    const wanted = this.wanted();
    if (wanted.every((part) => this.parts.has(part))) { this.show(wanted); return; }
    this.table.setAttribute("aria-busy", "true");
    if (this.busy) return;   // it looks again when it has what it asked for
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fetch(), QUIET_MS);   // not for every part that flies past
  }

  async fetch() {
    this.busy = true;
    const missing = this.wanted().filter((part) => !this.parts.has(part));
    const found = await Promise.all(missing.map((part) => this.rowsOf(part)));
    this.busy = false;
    missing.forEach((part, index) => { if (found[index]) this.parts.set(part, found[index]); });
    if (found.every(Boolean)) this.look();
  }

  async rowsOf(part) {
    const url = new URL(location.href);
    url.searchParams.set("part", "rows");
    url.searchParams.set("offset", String(part * SIZE));
    const body = (await load(url.href))?.getElementById("rows");
    if (!body) return null;
    this.total = Number(body.dataset.total);
    this.table.setAttribute("aria-rowcount", String(this.total + 1));
    return part * SIZE < this.total ? [...body.rows].map((row) => document.importNode(row, true)) : [];
  }

  /** Puts these parts into the document, and no others. */
  show(wanted) {
    for (const [part, rows] of this.parts) {
      if (wanted.includes(part)) continue;
      // Whoever moves by keyboard goes on from the table, and not from the top of the page.
      if (rows.some((row) => row.contains(document.activeElement))) this.table.focus({ preventScroll: true });
      for (const row of rows) row.remove();
      this.parts.delete(part);
    }
    let at = this.body.firstElementChild;
    for (const part of wanted) {
      for (const row of this.parts.get(part)) {
        if (row === at) at = at.nextElementSibling;
        else this.body.insertBefore(row, at);
      }
    }
    const news = wanted.join() !== this.shown.join();
    this.shown = wanted;
    this.place();
    this.table.removeAttribute("aria-busy");
    if (news) document.dispatchEvent(new CustomEvent("beamline:rows"));
  }

  place() {
    const end = Math.min(this.total, (this.shown.at(-1) + 1) * SIZE);
    set(this.above, this.shown[0] * SIZE * this.height());
    set(this.below, (this.total - end) * this.height());
  }

  /** Fetches again what is shown: something changed. */
  async again() {
    const shown = [...this.shown];
    const found = await Promise.all(shown.map((part) => this.rowsOf(part)));
    shown.forEach((part, index) => {
      const rows = found[index], old = this.parts.get(part);
      if (!rows || !old) return;
      rows.forEach((row, number) => {
        if (number >= old.length) old.push(row);
        else if (!old[number].isEqualNode(row)) fill(old[number], row);
      });
      for (const row of old.splice(rows.length)) row.remove();
    });
    this.look();
    document.dispatchEvent(new CustomEvent("beamline:rows"));
  }
}

function pad() {
  const body = document.createElement("tbody");
  body.className = "pad";
  body.setAttribute("aria-hidden", "true");
  body.append(document.createElement("tr"));
  return body;
}

function set(body, height) { body.rows[0].style.height = `${height}px`; }

/** Gives a row the cells of another one, those that differ. */
function fill(row, other) {
  [...other.cells].forEach((cell, index) => {
    if (!row.cells[index].isEqualNode(cell)) row.cells[index].replaceWith(cell.cloneNode(true));
  });
  row.setAttribute("aria-rowindex", other.getAttribute("aria-rowindex"));
}

if (table) {
  const list = new List(table);
  const its = (table.dataset.liveList ?? "").split(/\s+/);
  let timer = 0;
  const again = () => { clearTimeout(timer); timer = setTimeout(() => list.again(), 400); };
  for (const topic of topics.filter((topic) => its.includes(topic))) onTopic(topic, again);
  document.addEventListener("beamline:back", again);
}
