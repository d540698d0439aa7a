// Shows the pages of acts (links with data-act) in a dialog of this page. Without this file they are pages of their
// own: everything that counts happens on the server, which draws the question and the outcome.
//
// The browser's own modal dialog keeps the focus inside, closes on Escape and gives the focus back. What was asked
// for can't be taken back by closing, so the dialog stays while an act is under way.
import { fetchPage } from "./fetching.js";
import { refresh } from "./refresh.js";

let dialog = null;

function made() {
  const element = document.createElement("dialog");
  element.className = "acts";
  element.setAttribute("aria-labelledby", "act-title");
  element.addEventListener("cancel", (event) => { if (element.ariaBusy === "true") event.preventDefault(); });
  element.addEventListener("close", () => { element.remove(); dialog = null; });
  element.addEventListener("click", clicked);
  element.addEventListener("submit", submitted);
  document.body.append(element);
  return element;
}

/** Shows what the server answered; a problem is shown with the same way out. */
async function show(how) {
  if (dialog) dialog.ariaBusy = "true";
  const page = await fetchPage(how);
  if (dialog) dialog.ariaBusy = "false";
  if (!page) return;
  const part = page.getElementById("act") ?? problem(page);
  dialog ??= made();
  dialog.replaceChildren(document.importNode(part, true));
  if (!dialog.open) dialog.showModal();
  (dialog.querySelector("[autofocus], input:not([type=hidden]), [data-close]") ?? dialog).focus();
  if (part.dataset.done !== undefined) refresh();
}

function problem(page) {
  const part = document.createElement("section");
  part.className = "act card";
  const header = document.createElement("header");
  const title = document.createElement("h1");
  title.id = "act-title";
  title.textContent = page.querySelector("h1")?.textContent ?? "That did not work";
  header.append(title);
  const body = document.createElement("div");
  body.className = "body stack";
  for (const text of page.querySelectorAll("main p:not(:has(a))")) body.append(document.importNode(text, true));
  const footer = document.createElement("footer");
  const close = document.createElement("button");
  close.type = "button";
  close.dataset.close = "";
  close.textContent = "Close";
  footer.append(close);
  part.append(header, body, footer);
  return part;
}

function clicked(event) {
  const way = event.target.closest("[data-close], [data-stay]");
  if (!way) { if (event.target === dialog && dialog.ariaBusy !== "true") dialog.close(); return; }
  event.preventDefault();
  if (way.dataset.stay !== undefined) show({ url: way.href });
  else if (dialog.ariaBusy !== "true") dialog.close();
}

function submitted(event) {
  event.preventDefault();
  const form = event.target;
  const fields = new URLSearchParams(new FormData(form));
  if (dialog.ariaBusy === "true") return;
  if (form.method === "post") show({ url: form.action, body: fields });
  else show({ url: `${form.action.split("?")[0]}?${fields}` });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-act]");
  if (!link || event.defaultPrevented || event.metaKey || event.ctrlKey || event.shiftKey || event.button > 0) return;
  event.preventDefault();
  show({ url: link.href });
});
