"""One HTTP request and its answer.

An exchange is made when a head is there, and its task begins when all answers before it have left. It is the
whole of what a door sees of HTTP: :meth:`~Exchange.read` for the body, then :meth:`~Exchange.answer` for a
reply in one piece, or :meth:`~Exchange.begin`, :meth:`~Exchange.send` and :meth:`~Exchange.end` for one that
grows. A client that leaves before its answer is whole cancels the task; nothing is written to it any more.

What a body brings beyond what was asked for waits in the socket: reading pauses at ``_UNASKED_BYTES``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, Final, Protocol

import orjson
import structlog

from beamline_contract.errors import ErrorCode, WireError

Header = tuple[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
NO_STORE: Final = (b"cache-control", b"no-store")
_UNASKED_BYTES: Final = 64 * 1024
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
_STATUS: Final = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in _PHRASES.items()}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = (b"connection", b"close")
_LAST_CHUNK: Final = b"0\r\n\r\n"

log = structlog.get_logger()


class Line(Protocol):
    """The connection of an exchange."""

    peer: str | None

    @property
    def common(self) -> bytes:
        """Header lines of every answer."""
        ...

    @property
    def leaving(self) -> bool:
        """Whether this connection ends with its next answer."""
        ...

    def post(self, data: bytes) -> None:
        """Sends with the end of this turn of the loop, in the order of the calls to this and the next."""
        ...

    def write(self, data: bytes) -> None:
        """Sends at once."""
        ...

    async def room(self, limit_s: float | None) -> None:
        """Returns when what was written has left, or nearly so. Raises TimeoutError after ``limit_s``."""
        ...

    def pause(self) -> None:
        """Reads no more for now."""
        ...

    def resume(self) -> None:
        """Reads again."""
        ...

    def answered(self, exchange: Exchange, *, close: bool) -> None:
        """The answer is whole."""
        ...


Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """``lines`` are the request's headers with lower-case names, ``path`` is decoded and has no query."""

    __slots__ = (
        "_chunked",
        "_line",
        "_most",
        "_parts",
        "_task",
        "_told",
        "_waiter",
        "begun",
        "done",
        "keep_alive",
        "left",
        "lines",
        "method",
        "more_body",
        "path",
        "size",
        "started",
    )

    def __init__(
        self, line: Line, method: str, path: str, lines: list[Header], *, version: str, keep_alive: bool
    ) -> None:
        self.method = method
        self.path = path
        self.lines = lines
        self.keep_alive = keep_alive
        self.more_body = True
        self.size = 0
        """Bytes of body so far."""
        self.started = False
        """Whether its turn has come."""
        self.begun = False
        self.done = False
        self.left = False
        self._line = line
        self._chunked = version != "1.0"
        self._told = False
        self._most = _UNASKED_BYTES
        self._parts: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def peer(self) -> str | None:
        """The client's address."""
        return self._line.peer

    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        lines = self.lines
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in lines}
        return headers if len(headers) == len(lines) else _joined(lines)

    # The connection's side

    def start(
        self, handler: Handler, tasks: set[asyncio.Task[None]], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Its turn has come. The task is in ``tasks`` while it runs."""
        self.started = True
        tasks.add(loop.create_task(self._run(handler, tasks)))

    def body_part(self, part: bytes) -> None:
        """A piece of the body has come."""
        self.size += len(part)
        if self.done:
            return
        self._parts.append(part)
        if self.size > self._most:
            self._line.pause()
        self._wake()

    def body_complete(self) -> None:
        """There is no more of it."""
        self.more_body = False
        self._wake()

    def leave(self) -> None:
        """The client has gone."""
        if self.done or self.left:
            return
        self.left = True
        if self._task is not None:
            self._task.cancel()

    # The door's side

    async def read(self, most: int) -> bytes | None:
        """The body; None where it is larger than ``most`` bytes, and then its rest is still to come."""
        if self.more_body:
            if self._waits_for_leave():
                self._told = True
                self._line.write(_CONTINUE)
            self._most = most
        while self.more_body and self.size <= most:
            await self._part()
        if self.size > most:
            return None
        parts = self._parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def answer(
        self, status: int, body: bytes, headers: Iterable[Header] = (), *, close: bool = False
    ) -> None:
        """The whole reply. ``close``: the connection is not used again."""
        ends = self._ends(close)
        lines = [*headers, (b"content-length", b"%d" % len(body))]
        head = self._head(status, lines, ends=ends)
        self._put(head if self.method == "HEAD" else head + body, whole=True)
        self._over(ends)

    def answer_json(
        self, status: int, body: dict[str, Any], headers: Iterable[Header] = (), *, close: bool = False
    ) -> None:
        """A JSON reply that nobody may keep."""
        self.answer(status, orjson.dumps(body), (JSON, NO_STORE, *headers), close=close)

    def begin(self, status: int, headers: Iterable[Header]) -> None:
        """The head of a reply whose end is not known yet."""
        ends = self._ends(close=False)
        self.keep_alive = not ends
        lines = [*headers, (b"transfer-encoding", b"chunked")] if self._chunked else list(headers)
        self._put(self._head(status, lines, ends=ends))

    async def send(self, part: bytes, *, within_s: float | None = None) -> None:
        """A piece of it, not empty, once the client has taken what was sent before. Raises TimeoutError when
        it has not within ``within_s`` seconds; None: it has all the time.
        """
        await self._line.room(within_s)
        self._put(b"%x\r\n%b\r\n" % (len(part), part) if self._chunked else part)

    def end(self) -> None:
        """It is whole."""
        if self._chunked:
            self._put(_LAST_CHUNK)
        self._over(not self.keep_alive or self._line.leaving)

    async def _run(self, handler: Handler, tasks: set[asyncio.Task[None]]) -> None:
        # Not before: a task that is cancelled unbegun would never take itself out of ``tasks``.
        self._task = asyncio.current_task()
        try:
            if not self.left:
                await handler(self)
        except asyncio.CancelledError:
            self._fail(ErrorCode.UNAVAILABLE, "this router goes away; another one can be asked")
            raise
        except Exception:
            log.exception("http.crashed", path=self.path[:200])
        finally:
            assert self._task is not None
            tasks.discard(self._task)
            self._task = None  # the two would keep each other
        self._fail(ErrorCode.INTERNAL, "the router failed; its log has the place")

    def _fail(self, code: ErrorCode, message: str) -> None:
        """Ends what has no end yet."""
        if self.done or self.left:
            return
        if self.begun:  # all that is left to say is that this is not the end
            self._over(close=True)
            return
        error = WireError.of(code, message)
        # In both doors' words.
        body = {"error": {**error.to_wire(), "type": "server_error"}}
        self.answer_json(error.http_status, body, close=True)

    def _ends(self, close: bool) -> bool:
        return close or not self.keep_alive or self._line.leaving

    def _head(self, status: int, headers: list[Header], *, ends: bool) -> bytes:
        """Raises ValueError where a header would end its line: what a header says is not always ours."""
        if ends:
            headers.append(_CLOSE)
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        ended = len(headers)
        if not lines.count(b"\r\n") == lines.count(b"\n") == lines.count(b"\r") == ended:
            raise ValueError("a header of the answer has a line break in it")
        return b"%b%b%b\r\n" % (_STATUS[status], self._line.common, lines)

    def _put(self, data: bytes, *, whole: bool = False) -> None:
        self.begun = True
        if self.left:
            return
        if whole:
            self._line.post(data)
        else:
            self._line.write(data)

    def _over(self, close: bool) -> None:
        self.done = True
        self._parts.clear()
        if not self.left:
            self._line.answered(self, close=close)

    def _waits_for_leave(self) -> bool:
        if self._told or self.size or not self._chunked:
            return False
        return any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.lines)

    async def _part(self) -> None:
        self._line.resume()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _joined(lines: list[Header]) -> dict[str, str]:
    """Headers of which one comes more than once: a list, as RFC 9110 (5.3) has it. So baggage adds up, and of
    two keys, two deadlines or two traces none is valid, whichever somebody before us has looked at.
    """
    joined: dict[str, str] = {}
    for raw_name, raw_value in lines:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
