// Asking this server: pages as documents, the API as JSON. A change carries the word of this page's session.
const word = document.querySelector("meta[name=beamline-page]")?.content ?? "";

/** The page at `url` as a document, whatever its status; null where it can't be had, or where we were sent to the
 *  login. With `body` (URLSearchParams) it is posted. Its scripts never run. */
export function fetchPage({ url, body = null }) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open(body ? "POST" : "GET", url);
    if (body) request.setRequestHeader("content-type", "application/x-www-form-urlencoded");
    request.responseType = "document";
    request.timeout = 60_000;
    request.onload = () => {
      if (new URL(request.responseURL).pathname === "/login") { location.assign("/login"); resolve(null); return; }
      resolve(request.response);
    };
    request.onerror = request.ontimeout = () => resolve(null);
    request.send(body);
  });
}

/** `{ok, status, body}` of a call of the API with a JSON body. `body` is a problem document where it is not ok. */
export async function call(path, document) {
  try {
    const answer = await fetch(`/api/v1${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-beamline-page": word },
      body: JSON.stringify(document),
    });
    return { ok: answer.ok, status: answer.status, body: await answer.json() };
  } catch {
    return { ok: false, status: 0, body: { title: "No answer", detail: "The admin process does not answer." } };
  }
}

/** Posts a JSON body and calls `heard(event, data)` for each server-sent event of the answer, as it comes. Resolves to
 *  null at its end, or to a problem document. `signal` ends it: what was asked for is then cancelled by the server. */
export async function stream(path, document, heard, signal) {
  const lost = { title: "No answer", detail: "The admin process does not answer." };
  try {
    const answer = await fetch(`/api/v1${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-beamline-page": word },
      body: JSON.stringify(document),
      signal,
    });
    if (!answer.ok) return await answer.json();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return { ...lost, detail: "The connection ended before the answer did." };
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = /^event: (.+)$/m.exec(block)?.[1];
        const data = /^data: (.*)$/m.exec(block)?.[1];
        if (event === "end") return null;
        if (event && data) heard(event, JSON.parse(data));
      }
    }
  } catch (error) {
    if (signal?.aborted) return null;
    return lost;
  }
}
