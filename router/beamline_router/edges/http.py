"""The HTTP door: ``POST /v1/route``, the OpenAI-compatible paths, ``/healthz``, ``/readyz``, ``/metrics``.

A dictionary of paths: a few fixed ones need no routing library, and this is where every request of every user
passes. Per request: the caller's key, then the body up to its limit and not a byte further, then the request
is served in this task, which is cancelled where the client leaves (:mod:`.http_exchange`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.wire import MAX_BODY_BYTES
from beamline_sdk import exposition

from ..core.api_keys import without_keys
from ..core.intake import too_large
from .http_exchange import NO_STORE, Exchange
from .openai_chat import ChatFormat, answer_error, answer_models, error_body
from .route_format import Format, RouteFormat
from .serving import Serving
from .telemetry import Telemetry

Readiness = Callable[[], tuple[bool, dict[str, Any]]]
"""Whether the process may get traffic, and the body of /readyz."""
Endpoint = Callable[[Exchange], Awaitable[None]]

_LEFT: Final = WireError.of(ErrorCode.CANCELLED, "the caller went away before its body was there", attempts=0)


class HttpDoor:
    """Answers exchanges."""

    def __init__(
        self,
        serving: Serving,
        telemetry: Telemetry,
        readiness: Readiness,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = wall
        self._serving = serving
        self._telemetry = telemetry
        self._readiness = readiness
        probes = frozenset({"GET", "HEAD"})
        self._routes: dict[str, tuple[frozenset[str], Endpoint]] = {
            "/v1/route": (frozenset({"POST"}), self._route),
            "/v1/chat/completions": (frozenset({"POST"}), self._chat),
            "/v1/models": (probes, self._models),
            "/healthz": (probes, self._healthz),
            "/readyz": (probes, self._readyz),
            "/metrics": (probes, self._metrics),
        }
        self._openai = (self._chat, self._models)

    async def __call__(self, exchange: Exchange) -> None:
        """One HTTP exchange."""
        path = exchange.path
        found = self._routes.get("/v1/models" if path.startswith("/v1/models/") else path)
        if found is None:
            error = WireError.of(ErrorCode.NOT_FOUND, f"no such path; there are {', '.join(self._routes)}")
            # In both doors' words: whoever reads OpenAI's finds its type here, too.
            exchange.answer_json(404, {"error": {**error.to_wire(), "type": "invalid_request_error"}})
            return
        methods, endpoint = found
        if exchange.method not in methods:
            allowed = ", ".join(sorted(methods))
            error = WireError.of(ErrorCode.INVALID_ARGUMENT, f"this path takes {allowed}")
            body = {"error": error.to_wire()} if endpoint not in self._openai else error_body(error)
            exchange.answer_json(405, body, [(b"allow", allowed.encode())])
            return
        await endpoint(exchange)

    async def _route(self, exchange: Exchange) -> None:
        await self._serve(exchange, RouteFormat(exchange))

    async def _chat(self, exchange: Exchange) -> None:
        await self._serve(exchange, ChatFormat(exchange, self._clock()))

    async def _models(self, exchange: Exchange) -> None:
        models = self._serving.models(exchange.headers(), exchange.peer)
        if isinstance(models, WireError):
            answer_error(exchange, models)
        else:
            answer_models(exchange, models)

    async def _serve(self, exchange: Exchange, form: Format) -> None:
        """One request in the words of ``form``: its body read, served, and answered, streamed or not."""
        headers = exchange.headers()
        key = self._serving.admit("http", headers, exchange.peer)
        without_keys(headers)
        if isinstance(key, WireError):
            await form.finish(self._serving.refuse("http", headers, key), close=not _short(headers))
            return
        refusal = _unreadable(headers)
        if refusal is not None:
            await form.finish(self._serving.refuse("http", headers, refusal), close=True)
            return
        try:
            body = await _body(exchange, headers)
        except asyncio.CancelledError:
            self._serving.refuse("http", headers, _LEFT)
            raise
        if isinstance(body, WireError):
            await form.finish(self._serving.refuse("http", headers, body), close=True)
            return
        served = await self._serving.serve(
            "http", body, headers, key=key, shape=form.shape, sink_of=form.sink_of
        )
        await form.finish(served)

    async def _healthz(self, exchange: Exchange) -> None:
        exchange.answer_json(200, {"status": "ok"})

    async def _readyz(self, exchange: Exchange) -> None:
        ready, body = self._readiness()
        exchange.answer_json(200 if ready else 503, body)

    async def _metrics(self, exchange: Exchange) -> None:
        # In a thread: thousands of series take longer to render than a request may be kept waiting.
        accept = exchange.headers().get("accept")
        text, kind = await asyncio.to_thread(exposition.render, self._telemetry.registry, accept)
        exchange.answer(200, text, [(b"content-type", kind.encode()), NO_STORE])


def _unreadable(headers: dict[str, str]) -> WireError | None:
    """What becomes 415: another type than JSON, or JSON that is compressed."""
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        words = f"the content type must be application/json, got {kind[:80]!r}"
    else:
        coding = headers.get("content-encoding")
        if coding is None or coding.strip().lower() in {"", "identity"}:
            return None
        words = f"the body must not be compressed, got the content encoding {coding[:80]!r}"
    return WireError.of(ErrorCode.INVALID_ARGUMENT, words, details={"http_status": 415})


def _short(headers: dict[str, str]) -> bool:
    """Whether a body that nobody reads is worth receiving, to keep the connection."""
    stated = headers.get("content-length", "")
    return stated.isdecimal() and int(stated[:20]) <= MAX_BODY_BYTES


async def _body(exchange: Exchange, headers: dict[str, str]) -> bytes | WireError:
    """The body, or that it is too large."""
    stated = headers.get("content-length", "")
    size = int(stated[:20]) if stated.isdecimal() else 0
    if size <= MAX_BODY_BYTES:
        body = await exchange.read(MAX_BODY_BYTES)
        if body is not None:
            return body
    return too_large(size or None)
