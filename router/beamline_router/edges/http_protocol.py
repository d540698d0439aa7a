"""HTTP/1.1 as the doors speak it, around llhttp's parser (httptools): one :class:`Connection` per client.

A connection turns heads into exchanges (:mod:`.http_exchange`), hands each to the door when the answers
before it have left, and has an end for everything that a stranger may leave open. A head has
``MAX_HEAD_BYTES``; head and body have ``READ_S`` seconds each, and so has a client that says nothing; a kept
connection may rest for ``KEEP_ALIVE_S``. Who is slower is cut off. How large a body may be is the business of
the door. A few requests are read ahead, and none is begun while a client does not take what it was sent.

``Upgrade`` may be ignored by whoever does not speak what is offered (RFC 9110, 7.8), and Java's own client
offers ``h2c`` with the first request of every connection. The parser stops at such a head and takes the body
for the other protocol's; so a new parser gets the head again without the offer, and the request is served.

A door may refuse at the head (:mod:`.http_refusals`): then nothing is made of the request, and its body is
dropped as it arrives. What is not HTTP at all is refused in the shape that errors have everywhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote

import httptools
import structlog

from .http_exchange import Exchange, Header
from .http_refusals import no_request

MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and headers: room for 8 KiB of baggage, a large token, and as much again of what proxies add.
"""
READ_S: Final = 60.0
"""Seconds for a head to arrive, and for a body."""
KEEP_ALIVE_S: Final = 75.0
"""Seconds between two requests; nginx keeps its own connections to upstreams for 60, and the one who keeps
them longer is not the one who sends into a closing one.
"""
_AHEAD: Final = 8
"""Requests that are read behind the one under way: who does not read does not notice that a client leaves."""
_LINGER_S: Final = 1.0
_NOT_HTTP: Final = "400 Bad Request", "this is not HTTP/1.1"
_TOO_LARGE: Final = (
    "431 Request Header Fields Too Large",
    f"request line and headers may have at most {MAX_HEAD_BYTES} bytes",
)
_OFFERS: Final = frozenset({b"upgrade", b"http2-settings", b"connection"})

log = structlog.get_logger()


class Doors(Protocol):
    """Who serves what connections bring; all connections of a server share one."""

    leaving: bool
    """Whether connections end with their next answer."""
    connections: set[Connection]

    @property
    def refusal(self) -> Callable[..., tuple[bytes, bool] | None]:
        """``http_refusals.Shedding.refusal``."""
        ...

    def start(self, exchange: Exchange) -> None:
        """Begins to serve."""
        ...

    def common(self) -> bytes:
        """Header lines of every answer."""
        ...

    def gone(self, connection: Connection) -> None:
        """A connection has ended."""
        ...


class Connection(asyncio.Protocol):
    """One client, from its first byte to its last."""

    peer: str | None = None

    def __init__(self, doors: Doors, loop: asyncio.AbstractEventLoop) -> None:
        self._doors = doors
        self._loop = loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything is read
        self._parser = self._new_parser()
        self._queue: deque[Exchange] = deque()  # the first is being answered
        self._coming: Exchange | None = None  # whose body arrives; None also while one is dropped
        self._url = b""
        self._headers: list[Header] = []
        self._in_head = self._in_body = False
        self._read_by = inf  # for what is being read
        self._later = self._size = 0
        self._by = inf  # when the connection is cut off
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._room: asyncio.Future[None] | None = None  # while the client does not read

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        address = transport.get_extra_info("peername")
        if isinstance(address, tuple) and address:
            self.peer = str(address[0])
        self._doors.connections.add(self)
        self._until(self._loop.time() + READ_S)

    def data_received(self, data: bytes) -> None:
        """Bytes of any number of requests."""
        goes_on = self._in_head
        self._size = len(data)
        if goes_on:
            self._later += self._size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
            return
        except httptools.HttpParserError as fault:
            self._refuse(_TOO_LARGE if isinstance(fault.__context__, _TooLargeError) else _NOT_HTTP)
            return
        if self._in_head:
            if self._later > MAX_HEAD_BYTES:
                self._refuse(_TOO_LARGE)
                return
            if not goes_on:
                self._read_by = self._loop.time() + READ_S
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or was closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in self._queue:
            exchange.leave()
        self._queue.clear()
        self.resume_writing()
        self._doors.gone(self)

    def pause_writing(self) -> None:
        """The client reads slower than it is answered."""
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)
            self._go_on()

    # The parser's side

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        self._url = b""
        self._headers = []
        self._in_head = True
        self._later = 0

    def on_url(self, url: bytes) -> None:
        """A piece of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; spaces and tabs around its value are no part of it, and the parser leaves some."""
        self._headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        if self._later + self._size > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            raise _TooLargeError
        parser = self._parser
        if parser.should_upgrade():
            return
        keep = parser.should_keep_alive()
        if self._queue or not self._is_refused(keep=keep and not self._doors.leaving):
            self._coming = self._exchange(keep=keep)
            self._queue.append(self._coming)
        self._in_body = True
        self._read_by = inf
        if len(self._queue) > _AHEAD:
            self.pause()
        else:
            self._go_on()

    def on_body(self, part: bytes) -> None:
        """A piece of a body."""
        if self._coming is not None:
            self._coming.body_part(part)

    def on_message_complete(self) -> None:
        """The body is there. From now on reading tells whether the client stays."""
        self._in_body = False
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.body_complete()
        if len(self._queue) <= _AHEAD:
            self.resume()

    # The exchanges' side

    @property
    def common(self) -> bytes:
        """See ``http_exchange.Line``."""
        return self._doors.common()

    @property
    def leaving(self) -> bool:
        """See ``http_exchange.Line``."""
        return self._doors.leaving

    def write(self, data: bytes) -> None:
        """See ``http_exchange.Line``."""
        self._transport.write(data)

    async def room(self, limit_s: float | None) -> None:
        """See ``http_exchange.Line``."""
        if self._room is not None:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._room)

    def pause(self) -> None:
        """See ``http_exchange.Line``."""
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """See ``http_exchange.Line``."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def answered(self, exchange: Exchange, *, close: bool) -> None:
        """See ``http_exchange.Line``."""
        assert self._queue[0] is exchange
        self._queue.popleft()
        if close:
            self._transport.close()
        else:
            self._go_on()
            self._settle()

    # The server's side

    def close_when_idle(self) -> None:
        """Closes now, or with the answer under way."""
        if not self._queue:
            self._transport.close()
        for exchange in self._queue:
            exchange.keep_alive = False

    def abort(self) -> None:
        """Ends at once."""
        self._transport.abort()

    def _go_on(self) -> None:
        """Begins what waits, where the client takes what it was sent."""
        if self._room is not None or self._transport.is_closing():
            return
        if self._queue and not self._queue[0].started:
            self._doors.start(self._queue[0])
        if len(self._queue) <= _AHEAD:
            self.resume()

    def _settle(self) -> None:
        """How long the connection may stay as it is now."""
        if self._in_body:
            if self._read_by == inf:
                self._read_by = self._loop.time() + READ_S
            self._until(self._read_by)
        elif self._queue:
            self._by = inf
        elif self._in_head:
            self._until(self._read_by)
        else:
            self._until(self._loop.time() + KEEP_ALIVE_S)

    def _until(self, by: float) -> None:
        """One timer that is seldom moved: a request costs none."""
        self._by = by
        if self._timer is not None:
            if self._timer.when() <= by:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(by, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._by:
            if self._by < inf:
                self._until(self._by)
        elif self._room is None:
            self._transport.close()
        else:  # what it has not read will never leave
            self._transport.abort()

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        # A request behind one that says "connection: close" is dropped, not an error before its answer.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _decline(self, rest: bytes) -> None:
        """The same request without what it offers; ``rest`` is what came after its head."""
        method = self._parser.get_method()
        if method == b"CONNECT" or self._transport.is_closing():
            self._refuse(_NOT_HTTP)
            return
        closes = any(name == b"connection" and b"close" in value.lower() for name, value in self._headers)
        kept = [(name, value) for name, value in self._headers if name not in _OFFERS]
        if closes:
            kept.append((b"connection", b"close"))
        version = self._parser.get_http_version().encode()
        head = b"".join(b"%b: %b\r\n" % header for header in kept)
        first = b"%b %b HTTP/%b\r\n" % (method, self._url, version)
        self._parser = self._new_parser()
        self.data_received(first + head + b"\r\n" + rest)

    def _exchange(self, *, keep: bool) -> Exchange:
        """What the head asks for. Raises where its address is none, or not ASCII."""
        path = httptools.parse_url(self._url).path or b"/"
        text: str = path.decode("ascii")
        method, version = self._parser.get_method().decode("ascii"), self._parser.get_http_version()
        return Exchange(
            self,
            method,
            unquote(text) if "%" in text else text,
            self._headers,
            version=version,
            keep_alive=keep and version != "1.0",
        )

    def _is_refused(self, *, keep: bool) -> bool:
        """At the head, before anything is made of it; the body is dropped."""
        refusal = self._doors.refusal(self._url, self._headers, keep=keep)
        if refusal is None:
            return False
        answer, stays = refusal
        self._transport.write(answer)
        if not stays:
            self._transport.close()
        return True

    def _head_bytes(self) -> int:
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _refuse(self, refusal: tuple[str, str]) -> None:
        """Answers, and hears no more of this connection."""
        if self._transport.is_closing():
            return
        status, message = refusal
        log.warning("http.refused", reason=message, peer=self.peer)
        self._transport.set_protocol(_Deaf(self))
        broken = self._coming
        if broken is not None and not broken.done:
            broken.leave()
            self._queue.remove(broken)
        if self._queue:  # what came before is answered, and only that
            self._queue[-1].keep_alive = False
            self._by = inf
            return
        if self._in_body and (broken is None or broken.done):  # its answer has left
            self._transport.close()
            return
        self._transport.write(no_request(status, message))
        # Closed at once, with bytes unread, the answer would be lost to a reset.
        self._loop.call_later(_LINGER_S, self._transport.close)


class _TooLargeError(Exception):
    """Ends the parsing of a head."""


class _Deaf(asyncio.Protocol):
    """Takes what a refused client still sends, and forgets it."""

    def __init__(self, refused: Connection) -> None:
        self._refused = refused

    def connection_lost(self, exc: Exception | None) -> None:
        self._refused.connection_lost(exc)

    def pause_writing(self) -> None:
        self._refused.pause_writing()

    def resume_writing(self) -> None:
        self._refused.resume_writing()
