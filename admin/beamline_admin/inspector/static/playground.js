// Sends the request by the API and shows each answer as it comes, with a way to end it. What is drawn comes from the
// page's own templates, and the waterfall from the page of the request, once it has ended; text stays text.
import { fetchPage, stream } from "./fetching.js";

const form = document.getElementById("ask");
const answers = document.getElementById("answers");
const buttons = { send: document.getElementById("send"), cancel: document.getElementById("cancel") };
const said = document.getElementById("said");
const ASKED = { model: "model", tenant: "tenant_id", environment: "environment" };
const KEYS = new Set(["authorization", "x-api-key"]);

let running = null;

/** The body of the API's request that the form means. Throws an Error whose message is for people. */
function asked() {
  const field = (name) => form.elements[name]?.value.trim() ?? "";
  const body = { request: { prompt: form.elements.prompt.value }, headers: {} };
  for (const [name, key] of Object.entries(ASKED)) if (field(name)) body.request[key] = field(name);
  for (const name of ["policy", "compare"]) if (field(name)) body[name] = field(name).replaceAll("-", "_");
  for (const line of form.elements.headers.value.split("\n").filter((text) => text.trim())) {
    const [, name, value] = /^([^:]*):(.*)$/.exec(line) ?? [];
    if (name === undefined) throw new Error(`a header is written as name: value, not '${line.slice(0, 60)}'`);
    if (KEYS.has(name.trim().toLowerCase())) throw new Error("an API key goes into its own field, which no page shows again");
    body.headers[name.trim()] = value.trim();
  }
  if (field("key")) body.key = field("key");
  return body;
}

function drawn(id) {
  return document.importNode(document.getElementById(id).content, true).firstElementChild;
}

function tell(text, hint = "") {
  const notice = drawn("fault");
  const [what, more] = notice.querySelectorAll("p");
  what.textContent = text;
  if (hint) more.textContent = hint; else more.remove();
  answers.prepend(notice);
}

/** One answer on the page. */
class Answer {
  constructor(index, { policy, request_id: id }) {
    this.result = null;
    this.id = id;
    this.card = drawn("answer");
    this.part = (selector) => this.card.querySelector(selector);
    this.part("h2").id = `answer-${index + 1}`;
    this.card.setAttribute("aria-labelledby", `answer-${index + 1}`);
    this.name(policy);
    this.state("waiting");
    this.part("footer a").href = `/requests/${id}`;
    this.part("footer code").textContent = id;
    const copy = this.part("footer .copy");
    copy.dataset.copy = id;
    copy.ariaLabel = `Copy request id ${id}`;
    answers.append(this.card);
  }

  name(policy) {
    const heading = this.part("h2");
    if (!policy) { heading.textContent = this.result ? "No policy" : "By its match"; return; }
    const link = document.createElement("a");
    link.href = `/policies/${encodeURIComponent(policy)}`;
    link.textContent = policy;
    heading.replaceChildren(link);
  }

  state(name, word = "") {
    const badge = drawn("states").querySelector(`[data-state=${name}] .badge`);
    if (word) badge.lastChild.textContent = word;
    this.part(".state").replaceChildren(badge);
  }

  chunk({ text, message }) {
    this.part(".output").append(text ?? `\n${JSON.stringify(message, null, 2)}\n`);
  }

  show(text, selector) {
    const part = this.part(selector);
    part.textContent = text;
    part.hidden = !text;
  }

  ended(result) {
    this.result = result;
    this.name(result.policy);
    this.part(".took").textContent = millis(result.latency_ms);
    const failed = result.error;
    if (failed) {
      const code = failed.code ?? "failed";
      this.state(code === "VALIDATION_REJECTED" ? "rejected" : "failed", code);
      this.show(failed.message ?? "", ".why");
      if (code === "UNAUTHENTICATED") this.part(".why").after(drawn("key-hint"));
      this.part(".output").hidden = !this.part(".output").textContent;
      return;
    }
    this.state("ok");
    const { provider_id: provider, usage, metadata } = result.answer;
    const facts = [["Provider", provider], ["Model", metadata?.model], ["Ended", metadata?.finish_reason], ["Tokens", usage?.total_tokens]];
    this.show(facts.filter(([, value]) => value != null).map((fact) => fact.join(" ")).join(" · "), ".facts-line");
  }

  /** The way that it took, as the page of the request draws it. */
  async drawWay() {
    const page = await fetchPage({ url: `/requests/${this.id}` });
    const way = page?.querySelector("table.waterfall");
    if (way) this.part(".way").replaceChildren(document.importNode(way, true));
  }

  cancelled() {
    if (!this.result) this.state("cancelled");
  }
}

function millis(ms) {
  return ms < 10_000 ? `${ms >= 100 ? Math.round(ms) : Math.round(ms * 10) / 10}\u00a0ms` : `${Math.round(ms / 100) / 10}\u00a0s`;
}

function compare([one, other]) {
  if (!one?.result || !other?.result) return;
  const failed = [one, other].filter(({ result }) => result.error).length;
  const same = one.result.answer?.output === other.result.answer?.output;
  const verdict = drawn("verdicts");
  const holds = failed === 2 ? "failed" : failed === 1 ? "one" : same ? "same" : "different";
  for (const mark of verdict.querySelectorAll("[data-verdict]")) if (mark.dataset.verdict !== holds) mark.remove();
  const took = ({ result }) => `${result.policy ?? "no policy"} took ${millis(result.latency_ms)}`;
  verdict.querySelector(".quiet").textContent = `${took(one)}, ${took(other)}.`;
  answers.prepend(verdict);
}

async function send() {
  if (running) return;
  let body;
  try { body = asked(); } catch (error) { answers.replaceChildren(); tell(error.message); return; }
  const shown = [];
  running = new AbortController();
  answers.ariaBusy = "true";
  buttons.send.disabled = true;
  buttons.cancel.hidden = false;
  const heard = (event, data) => {
    if (event === "begin") shown[data.index] = new Answer(data.index, data);
    else if (event === "chunk") shown[data.index]?.chunk(data);
    else if (event === "answer") shown[data.index]?.ended(data);
  };
  answers.replaceChildren();
  document.getElementById("play").classList.toggle("two", body.compare !== undefined);
  const problem = await stream("/playground/stream", body, heard, running.signal);
  for (const one of shown) one.cancelled();
  if (problem) tell(problem.detail ?? problem.title, problem.hint);
  compare(shown);
  if (said) said.textContent = problem ? "" : running.signal.aborted ? "Cancelled" : "Answered";
  running = null;
  answers.ariaBusy = "false";
  buttons.send.disabled = false;
  buttons.cancel.hidden = true;
  await Promise.all(shown.filter((one) => one.result).map((one) => one.drawWay()));
  document.dispatchEvent(new CustomEvent("beamline:refreshed"));
}

buttons.cancel?.addEventListener("click", () => running?.abort());
form?.addEventListener("submit", (event) => { event.preventDefault(); send(); });
form?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
