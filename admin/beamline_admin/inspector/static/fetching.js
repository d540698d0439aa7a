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
