"""The HTTP door: ``POST /v1/route``, the OpenAI-compatible paths, ``/healthz``, ``/readyz``, ``/metrics``.

It is one bare ASGI callable over a dictionary of paths: a few fixed paths need no routing library, and this
is where every request of every user passes. uvicorn with httptools speaks HTTP itself.

Per request: the body is read up to its limit and not a byte further; then the request runs in this task,
which the protocol (:mod:`.http_protocol`) cancels where the client leaves. Shutdown is uvicorn's, after kept
connections were asked to go: stop listening, let answers finish, close. Signals are the application's
business, so uvicorn's own handlers stay off.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from math import ceil
from typing import Any, Final

import uvicorn

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.wire import MAX_BODY_BYTES
from beamline_sdk import exposition

from ..core.api_keys import without_keys
from ..core.intake import too_large
from .http_protocol import WHEN_LEFT
from .http_replies import NO_STORE, Receive, Scope, Send, send_json, send_whole
from .http_shed import GOODBYE
from .openai_chat import ChatFormat, error_body, send_error, send_models
from .route_format import Format, RouteFormat
from .serving import Serving
from .telemetry import Telemetry

Readiness = Callable[[], tuple[bool, dict[str, Any]]]
"""Whether the process may get traffic, and the body of /readyz."""
Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]

_BACKLOG: Final = 2048
_LINGER_BYTES: Final = 4 * 1024 * 1024
_LINGER_S: Final = 1.0
LEAVE_S: Final = 1.0
"""How long kept connections are asked to go before they are closed: longer than a client at work pauses."""
_LOOK_EVERY_S: Final = 0.02


class ListenError(RuntimeError):
    """The address can't be used; the message is one sentence for the person who started the process."""


class HttpDoor:
    """The ASGI application; made on the loop that serves it."""

    def __init__(
        self,
        serving: Serving,
        telemetry: Telemetry,
        readiness: Readiness,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = wall
        self._loop = asyncio.get_running_loop()
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP exchange."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        found = self._routes.get("/v1/models" if path.startswith("/v1/models/") else path)
        if found is None:
            error = WireError.of(ErrorCode.NOT_FOUND, f"no such path; there are {', '.join(self._routes)}")
            # In both doors' words: whoever reads OpenAI's finds its type here, too.
            await send_json(send, 404, {"error": {**error.to_wire(), "type": "invalid_request_error"}})
            return
        methods, endpoint = found
        if scope["method"] not in methods:
            allowed = ", ".join(sorted(methods))
            error = WireError.of(ErrorCode.INVALID_ARGUMENT, f"this path takes {allowed}")
            body = {"error": error.to_wire()} if endpoint not in self._openai else error_body(error)
            await send_json(send, 405, body, [(b"allow", allowed.encode())])
            return
        await endpoint(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._exchange(scope, receive, RouteFormat(send))

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._exchange(scope, receive, ChatFormat(send, self._clock()))

    async def _models(self, scope: Scope, _receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        models = self._serving.models(headers, _peer(scope))
        if isinstance(models, WireError):
            await send_error(send, models)
            return
        await send_models(send, scope["path"], models)

    async def _exchange(self, scope: Scope, receive: Receive, form: Format) -> None:
        """One request in the words of ``form``: its body read, served, and answered, streamed or not."""
        headers = _headers(scope)
        key = self._serving.admit("http", headers, _peer(scope))
        without_keys(headers)
        if isinstance(key, WireError):
            await form.finish(self._serving.refuse("http", headers, key), close=not _short(headers))
            return
        refusal = _unreadable(headers)
        if refusal is not None:
            await form.finish(self._serving.refuse("http", headers, refusal), close=True)
            return
        body = await _read_body(headers, receive)
        if body is None:
            return
        if isinstance(body, WireError):
            await form.finish(self._serving.refuse("http", headers, body), close=True)
            return
        task = asyncio.current_task(self._loop)  # to look the loop up is a system call before Python 3.12
        assert task is not None
        caller = _Caller(task)
        scope[WHEN_LEFT] = caller.leave
        try:
            served = await self._serving.serve(
                "http", body, headers, key=key, shape=form.shape, sink_of=form.sink_of
            )
        except asyncio.CancelledError:
            if not caller.left:
                raise
            task.uncancel()
            return
        finally:
            del scope[WHEN_LEFT]
        await form.finish(served)

    async def _healthz(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"status": "ok"})

    async def _readyz(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        ready, body = self._readiness()
        await send_json(send, 200 if ready else 503, body)

    async def _metrics(self, scope: Scope, _receive: Receive, send: Send) -> None:
        # In a thread: thousands of series take longer to render than a request may be kept waiting.
        accept = _headers(scope).get("accept")
        text, kind = await asyncio.to_thread(exposition.render, self._telemetry.registry, accept)
        await send_whole(send, 200, text, [(b"content-type", kind.encode()), NO_STORE])


class _Caller:
    """The client of a request, whose task is cancelled when it leaves."""

    __slots__ = ("_task", "left")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.left = False

    def leave(self) -> None:
        self.left = True
        self._task.cancel()


class HttpServer:
    """uvicorn around an ASGI application, on a socket of ours, so that port 0 is known at once."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        host: str,
        port: int,
        protocol: type[asyncio.Protocol] | None = None,
    ) -> None:
        self._socket = listen(host, port)
        self.host = host
        self.port = int(self._socket.getsockname()[1])
        self._server = _Quiet(
            uvicorn.Config(
                app,
                http=protocol or "httptools",
                ws="none",
                lifespan="off",
                loop="none",
                interface="asgi3",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to accept connections on the running loop."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")

    async def stop(self, grace_s: float) -> None:
        """Lets clients leave, stops accepting, waits for answers under way (at most ``grace_s`` seconds),
        closes.

        A kept connection that is closed just when its client sends the next request costs that request. So
        for :data:`LEAVE_S` every answer says ``connection: close``, and clients that are at work go elsewhere
        of their own accord; what is idle then is closed.
        """
        await self._leave(min(LEAVE_S, grace_s))
        self._server.config.timeout_graceful_shutdown = max(1, ceil(grace_s))
        self._server.should_exit = True
        task, self._task = self._task, None
        if task is not None:
            await task
        self._socket.close()

    async def _leave(self, limit_s: float) -> None:
        state = self._server.server_state
        self._server.config.encoded_headers.append(GOODBYE)  # uvicorn renews what follows from it
        state.default_headers = [*state.default_headers, GOODBYE]
        for connection in tuple(state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is not None:  # its answer has not begun, or ends without a word
                cycle.keep_alive = False
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while state.connections:  # noqa: ASYNC110 -- uvicorn tells nobody when one goes
                    await asyncio.sleep(_LOOK_EVERY_S)


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the application."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises :class:`ListenError` with one sentence that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(_BACKLOG)  # from here on clients wait instead of being refused
        bound.setblocking(False)
    except (OSError, OverflowError) as error:
        bound.close()
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        why = (
            "is taken: stop what listens there, or choose another port"
            if taken
            else f"can't be used: {error}"
        )
        raise ListenError(f"{host}:{port} for HTTP {why}") from error
    return bound


def _headers(scope: Scope) -> dict[str, str]:
    lines = scope["headers"]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in lines}
    return headers if len(headers) == len(lines) else _joined(lines)


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


def _joined(lines: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers of which one comes more than once: a list, as RFC 9110 (5.3) has it. So baggage adds up, and of
    two keys, two deadlines or two traces none is valid, whichever somebody before us has looked at.
    """
    joined: dict[str, str] = {}
    for raw_name, raw_value in lines:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return None if not client else str(client[0])


def _short(headers: dict[str, str]) -> bool:
    """Whether a body that nobody reads is worth receiving, to keep the connection."""
    stated = headers.get("content-length", "")
    return stated.isdecimal() and int(stated[:20]) <= MAX_BODY_BYTES


async def _linger(receive: Receive) -> None:
    """Reads a little more of a body that is refused, and forgets it.

    A connection that is closed with unread bytes is reset, and with it goes the refusal that its client would
    have read.
    """
    left = _LINGER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))


async def _read_body(headers: dict[str, str], receive: Receive) -> bytes | WireError | None:
    """The body, a refusal (too large), or None when the client left while sending it."""
    stated = headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > MAX_BODY_BYTES:
        await _linger(receive)
        return too_large(int(stated[:20]))
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body if len(body) <= MAX_BODY_BYTES else too_large()
    parts, size = [body], len(body)
    while size <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if not message.get("more_body", False):
            return b"".join(parts) if size <= MAX_BODY_BYTES else too_large()
    await _linger(receive)
    return too_large()
