"""What every request passes first: an id, who asks, and the headers that every answer carries.

Deny by default: only the paths in :data:`PUBLIC` are answered to strangers. Under ``/api/`` a bearer token
counts, and a session's cookie only for our own pages (:mod:`.page_calls`), so no page of another site can act
in somebody's name. Everywhere else a session's cookie counts; a browser without one is sent to ``/login``. A
link with ``?token=`` is sent there as well, so that the token leaves the address bar.

A fault that nobody caught ends here: logged with its place, answered without it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response

from beamline_contract.errors import ErrorCode

from .identity import Client, Identity, Verifier, VerifierError, bearer_of, client_of
from .inspector.static_files import STATIC
from .limits import MAX_BODY, Rate
from .page_calls import is_ours
from .problems import MEDIA_TYPE, ProblemError
from .telemetry import Telemetry

log = structlog.get_logger()

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SESSION_COOKIE: Final = "beamline_session"
PUBLIC: Final = frozenset({"/healthz", "/readyz", "/metrics", "/login", *STATIC})
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Gate:
    """ASGI middleware around the application."""

    def __init__(
        self, app: App, *, tokens: Verifier, sessions: Verifier, telemetry: Telemetry, rate: Rate
    ) -> None:
        self._app = app
        self._rate = rate
        self._tokens = tokens
        self._sessions = sessions
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP exchange; anything else is not served."""
        if scope["type"] != "http":
            return
        started, answer = time.monotonic(), _Answer(send, uuid4().hex)
        scope.setdefault("state", {})["request_id"] = answer.request_id
        try:
            refusal = await self._refusal(scope)
            if refusal is None and scope["method"] in _WITH_BODY and scope["path"].startswith("/api/"):
                body = await _body(scope, receive)
                if body is None:
                    refusal = problem_answer(_too_large(), answer.request_id)
                elif body and not _is_json(scope):
                    refusal = problem_answer(_not_json(), answer.request_id)
                else:
                    receive = _again(body, receive)
            await (refusal or self._app)(scope, receive, answer.send)
        except Exception as error:  # the last resort: an answer without the fault's text
            log.exception("admin.request_failed", request_id=answer.request_id, path=scope["path"])
            if answer.status == 0:  # outside of the application, whose own handler answers its faults
                fault = ProblemError(ErrorCode.INTERNAL, f"the admin process failed ({type(error).__name__})")
                await problem_answer(fault, answer.request_id)(scope, receive, answer.send)
        route = getattr(scope.get("route"), "path", "other")
        seconds = time.monotonic() - started
        self._telemetry.request(route, scope["method"], answer.status, seconds)

    async def _refusal(self, scope: Scope) -> Response | None:
        """The answer to somebody who may not pass; None, and the identity in the scope, to who may."""
        path, client = scope["path"], client_of(scope)
        if path in PUBLIC:
            return None
        query = scope["query_string"].decode("latin-1")
        if path == "/" and any(part.startswith("token=") for part in query.split("&")):
            return RedirectResponse(f"/login?{query}", 303)
        try:
            identity = await self._identity(scope, client)
        except VerifierError as error:
            return problem_answer(
                ProblemError(ErrorCode.UNAVAILABLE, str(error)), scope["state"]["request_id"]
            )
        wait = self._rate.wait_s(client.address if identity is None else f"id {identity.subject}")
        if wait > 0.0:
            limited = ProblemError(ErrorCode.RESOURCE_EXHAUSTED, "too many requests", hint="slow down")
            return problem_answer(limited, scope["state"]["request_id"], retry_after_s=wait)
        if identity is not None:
            scope["state"]["identity"] = identity
            scope["state"]["still"] = lambda: self._still(scope, client, identity)
            return None
        log.info("admin.refused", path=path, client=client.address, request_id=scope["state"]["request_id"])
        if path.startswith("/api/"):
            refused = ProblemError(ErrorCode.UNAUTHENTICATED, _WHO, hint=_HOW)
            return problem_answer(refused, scope["state"]["request_id"])
        return RedirectResponse("/login", 303)

    async def _identity(self, scope: Scope, client: Client) -> Identity | None:
        api = scope["path"].startswith("/api/")
        if api and any(name == b"authorization" for name, _ in scope["headers"]):
            token = bearer_of(scope)
            return await self._tokens.verify(token, client) if token is not None else None
        secret = session_of(scope)
        if secret is None or (api and not is_ours(scope, secret)):
            return None
        return await self._sessions.verify(secret, client)

    async def _still(self, scope: Scope, client: Client, identity: Identity) -> bool:
        """Whether the caller is still who they were: what streams ask from time to time."""
        try:
            return await self._identity(scope, client) == identity
        except VerifierError:
            return True  # nobody can say now; the next time somebody can


_WHO: Final = "the request carries no token that is accepted here"
_HOW: Final = "send 'Authorization: Bearer TOKEN'; the one printed at start works from the same machine only"


class _Answer:
    """Watches an answer go out, and adds the headers that every answer has."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = self.request_id
            message["headers"] = headers.raw
        await self._send(message)


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None where it is larger than :data:`MAX_BODY`, which is then not read."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > MAX_BODY):
            return None
    found = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(found)
        found += message.get("body", b"")
        if len(found) > MAX_BODY:
            return None
        if not message.get("more_body", False):
            return bytes(found)


def _again(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that tells ``body`` in one message, then goes on."""
    told = False

    async def tell() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return tell


def _too_large() -> ProblemError:
    what = f"the body may have at most {MAX_BODY} bytes"
    return ProblemError(ErrorCode.INVALID_ARGUMENT, what, status=413)


def _is_json(scope: Scope) -> bool:
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    return len(kinds) == 1 and kinds[0].partition(b";")[0].strip().lower() == b"application/json"


def _not_json() -> ProblemError:
    return ProblemError(
        ErrorCode.INVALID_ARGUMENT,
        "the body must be JSON and say so",
        hint="send 'Content-Type: application/json'",
        status=415,
    )


def problem_answer(error: ProblemError, request_id: str, *, retry_after_s: float = 1.0) -> Response:
    """A problem document as a response."""
    headers = {"www-authenticate": 'Bearer realm="beamline"'} if error.status == 401 else {}
    if error.status in {429, 503}:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    body = error.document(request_id).model_dump(exclude_none=True)
    return JSONResponse(body, error.status, headers, MEDIA_TYPE)


def session_of(scope: Scope) -> str | None:
    """The session's secret in the cookies of an ASGI scope."""
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                morsel = SimpleCookie(value.decode("latin-1")).get(SESSION_COOKIE)
            except CookieError:
                continue
            if morsel is not None:
                return str(morsel.value)
    return None
