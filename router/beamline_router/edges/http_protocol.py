"""What uvicorn leaves open on a connection: heads without an end, and offers to speak another protocol.

What is read from anybody, before a key is looked at, has bounds: a head has MAX_HEAD_BYTES, head and body
have READ_S seconds each, and a connection that has said nothing yet has as long. Who is slower is cut off.
How large a body may be is the business of :mod:`.http`.

``Upgrade`` may be ignored by whoever does not speak what is offered (RFC 9110, 7.8), and Java's own client
offers ``h2c`` with the first request of every connection. The parser stops at such a head and takes the body
for the other protocol's; so a new parser gets the head again without the offer, and the request is served.

Who serves a request is told when its client leaves (:data:`WHEN_LEFT`).

What is not HTTP at all is refused in the shape that errors have everywhere.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from beamline_contract.errors import ErrorCode, WireError

MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and headers: room for 8 KiB of baggage, a large token, and as much again of what proxies add.
"""
READ_S: Final = 60.0
"""Seconds for a head to arrive, and for a body (at times up to twice as long)."""
WHEN_LEFT: Final = "beamline.when_left"
"""Key of an exchange's ASGI scope: what is called when its client leaves before the answer is whole. To wait
for that with ``receive`` takes a task for each request.
"""
_LINGER_S: Final = 1.0
_NOT_HTTP: Final = "400 Bad Request", "this is not HTTP/1.1"
_TOO_LARGE: Final = (
    "431 Request Header Fields Too Large",
    f"request line and headers may have at most {MAX_HEAD_BYTES} bytes",
)
_OFFERS: Final = frozenset({b"upgrade", b"http2-settings", b"connection"})


class Answered:
    """Stands in uvicorn's books for an exchange that is over."""

    response_complete = True
    more_body = False
    keep_alive = True
    disconnected = False

    class message_event:  # noqa: N801 -- uvicorn's name
        """Nobody waits for it."""

        @staticmethod
        def set() -> None:
            """Called when the connection ends."""


ANSWERED: Final = Answered()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded."""

    _in_head = False
    _head_by = 0.0
    _later = 0
    _size = 0
    _watched = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; it has READ_S until its first byte."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(READ_S, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; a head that goes on for too many reads is refused."""
        self._unset_keepalive_if_required()
        goes_on = self._in_head
        self._size = len(data)
        if goes_on:
            self._later += self._size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError as fault:
            self._refuse_head(_TOO_LARGE if isinstance(fault.__context__, _TooLargeError) else _NOT_HTTP)
        else:
            if self._in_head:
                self._wait_on(goes_on=goes_on)
            elif self.cycle is not None and self.cycle.more_body and not self._watched:
                self._watched = True
                self.loop.call_later(READ_S, self._look_at_body, self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or the server closed."""
        cycle = self.cycle
        super().connection_lost(exc)
        if cycle is not None and cycle.disconnected:
            tell = cycle.scope.get(WHEN_LEFT)
            if tell is not None:
                tell()

    def on_message_complete(self) -> None:
        """The body is there. From now on reading tells whether the client stays."""
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        super().on_message_begin()
        self._in_head = True
        self._later = 0

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        if self._later + self._size > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            raise _TooLargeError
        if not self.parser.should_upgrade():
            self.head_complete()
        elif self._free():
            self.cycle: Any = ANSWERED

    def head_complete(self) -> None:
        """A head that is to be served."""
        super().on_headers_complete()

    def _wait_on(self, *, goes_on: bool) -> None:
        """For the rest of a head; ``goes_on``: it began in an earlier read."""
        if self._later > MAX_HEAD_BYTES:
            self._refuse_head(_TOO_LARGE)
            return
        if not goes_on:
            self._head_by = self.loop.time() + READ_S
        if self._free():  # else the answer before it has a time of its own
            self.timeout_keep_alive_task = self.loop.call_at(self._head_by, self.timeout_keep_alive_handler)

    def _look_at_body(self, seen: object) -> None:
        """A timer for each connection, not for each body: most are whole long before."""
        self._watched = False
        if self.transport.is_closing() or not self.cycle.more_body:
            return
        if self.cycle is seen:
            self.transport.close()
        else:
            self._watched = True
            self.loop.call_later(READ_S, self._look_at_body, self.cycle)

    def _free(self) -> bool:
        """Whether no exchange is under way; what is queued behind one keeps its turn."""
        return self.cycle is None or self.cycle.response_complete

    def _decline(self, rest: bytes) -> None:
        """The same request without what it offers; ``rest`` is what came after its head."""
        method = self.parser.get_method()
        if method == b"CONNECT" or self.transport.is_closing():
            self._refuse_head(_NOT_HTTP)
            return
        closes = any(name == b"connection" and b"close" in value.lower() for name, value in self.headers)
        kept = [(name, value) for name, value in self.headers if name not in _OFFERS]
        if closes:
            kept.append((b"connection", b"close"))
        version = self.parser.get_http_version().encode()
        head = b"".join(b"%b: %b\r\n" % header for header in kept)
        first = b"%b %b HTTP/%b\r\n" % (method, self.url, version)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(first + head + b"\r\n" + rest)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_head(self, refusal: tuple[str, str]) -> None:
        """Answers, and hears no more of this connection."""
        if self.transport.is_closing():
            return
        status, message = refusal
        self.logger.warning("refused a connection: %s", message)
        self.transport.set_protocol(_Deaf(self))
        if not self._free() and not self.cycle.more_body:  # what came before is answered, and only that
            self.cycle.keep_alive = False
            return
        error = WireError.of(ErrorCode.INVALID_ARGUMENT, message)
        # In both doors' words: whose request this was to be nobody knows.
        body = orjson.dumps({"error": {**error.to_wire(), "type": "invalid_request_error"}})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        # Closed at once, with bytes unread, the answer would be lost to a reset.
        self.loop.call_later(_LINGER_S, self.transport.close)


class _TooLargeError(Exception):
    """Ends the parsing of a head."""


class _Deaf(asyncio.Protocol):
    """Takes what a refused client still sends, and forgets it."""

    def __init__(self, refused: BoundedProtocol) -> None:
        self._refused = refused

    def connection_lost(self, exc: Exception | None) -> None:
        self._refused.connection_lost(exc)

    def pause_writing(self) -> None:
        self._refused.pause_writing()

    def resume_writing(self) -> None:
        self._refused.resume_writing()
