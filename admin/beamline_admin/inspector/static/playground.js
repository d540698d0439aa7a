// Sends the form without leaving the page: the server draws the answers, this puts them in their place.
import { fetchPage } from "./fetching.js";

const form = document.getElementById("ask");
const said = document.getElementById("said");

async function send() {
  const answers = document.getElementById("answers");
  const button = document.getElementById("send");
  if (answers.ariaBusy === "true") return;
  answers.ariaBusy = "true";
  button.textContent = "Sending";
  const page = await fetchPage({ url: form.action, body: new URLSearchParams(new FormData(form)) });
  button.textContent = "Send";
  answers.ariaBusy = "false";
  const fresh = page?.getElementById("answers") ?? page?.querySelector("main section");
  if (!fresh) { if (said) said.textContent = "The admin process does not answer."; return; }
  document.getElementById("play").className = page.getElementById("play")?.className ?? "play";
  answers.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  document.dispatchEvent(new CustomEvent("beamline:refreshed"));
}

form?.addEventListener("submit", (event) => { event.preventDefault(); send(); });
form?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
});
