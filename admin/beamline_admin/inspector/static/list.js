// A long list with few rows in the document. The server gives rows in parts (part=rows&offset=N); those near the
// window stay in the table, two empty bodies hold the place of all others. Every row has the height --row.
//
// Rows that stay are never moved, so focus is kept; a part that scrolled far away is dropped and fetched again.
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
    this.parts = new Map();   // number of a part -> its rows
    this.asked = new Set();
    this.above = pad();
    this.below = pad();
    this.body.before(this.above);
    this.body.after(this.below);
    this.parts.set(Number(table.dataset.offset) / SIZE, [...this.body.rows]);
    document.querySelector("[data-pager]")?.setAttribute("hidden", "");
    this.timer = 0;
    const look = () => requestAnimationFrame(() => this.look());
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look, { passive: true });
    // An old link may begin in the middle.
    this.place();
    if (this.offset > 0) scrollTo(0, this.top() + this.offset * this.height() - 100);
    this.look();
  }

  get offset() { return Math.min(...this.parts.keys()) * SIZE; }
  get shown() { return [...this.parts.values()].reduce((sum, rows) => sum + rows.length, 0); }
  height() { return parseFloat(getComputedStyle(this.table).getPropertyValue("--row")); }
  top() { return this.above.getBoundingClientRect().top + scrollY; }

  /** The parts that the window and its surroundings need. */
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
    const missing = this.wanted().filter((part) => !this.parts.has(part));
    if (missing.length === 0) { this.trim(); return; }
    this.table.setAttribute("aria-busy", "true");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fetch(), QUIET_MS);   // not for every part that flies past
  }

  async fetch() {
    const wanted = this.wanted().filter((part) => !this.parts.has(part) && !this.asked.has(part));
    await Promise.all(wanted.map((part) => this.fetchPart(part)));
    this.trim();
    if (!this.wanted().some((part) => !this.parts.has(part))) this.table.removeAttribute("aria-busy");
    document.dispatchEvent(new CustomEvent("beamline:rows"));
  }

  async fetchPart(part) {
    this.asked.add(part);
    try {
      const rows = await this.rowsOf(part);
      if (rows) { this.parts.get(part)?.forEach((row) => row.remove()); this.parts.set(part, rows); this.arrange(); }
    } finally { this.asked.delete(part); }
  }

  async rowsOf(part) {
    const url = new URL(location.href);
    url.searchParams.set("part", "rows");
    url.searchParams.set("offset", String(part * SIZE));
    const fresh = await load(url.href);
    const body = fresh?.getElementById("rows");
    if (!body) return null;
    this.total = Number(body.dataset.total);
    this.table.setAttribute("aria-rowcount", String(this.total + 1));
    return part * SIZE < this.total ? [...body.rows].map((row) => document.importNode(row, true)) : [];
  }

  /** Drops what is neither wanted nor touching what is, then shows the rest in order. */
  trim() {
    const wanted = new Set(this.wanted());
    for (const [part, rows] of this.parts) {
      if (wanted.has(part) || rows.some((row) => row.contains(document.activeElement))) continue;
      for (const row of rows) row.remove();
      this.parts.delete(part);
    }
    this.arrange();
  }

  arrange() {
    let at = this.body.firstElementChild;
    for (const part of [...this.parts.keys()].sort((one, other) => one - other)) {
      for (const row of this.parts.get(part)) {
        if (row === at) at = at.nextElementSibling;
        else this.body.insertBefore(row, at);
      }
    }
    this.place();
  }

  place() {
    const height = this.height();
    const first = this.parts.size ? this.offset : 0;
    const gap = this.parts.size ? (Math.max(...this.parts.keys()) + 1) * SIZE : 0;
    set(this.above, first * height);
    set(this.below, Math.max(0, this.total - Math.min(gap, this.total)) * height);
  }

  /** Fetches what is shown again: something changed. */
  async again() {
    for (const part of [...this.parts.keys()]) {
      const rows = await this.rowsOf(part);
      const old = this.parts.get(part);
      if (!rows || !old) continue;
      rows.forEach((row, index) => {
        if (index >= old.length) old.push(row);
        else if (!old[index].isEqualNode(row)) { fill(old[index], row); }
      });
      for (const row of old.splice(rows.length)) row.remove();
    }
    this.arrange();
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
