"""HTTP/1.1 as the doors speak it, around llhttp's parser (httptools): one :class:`Connection` per client.

A connection turns heads (:mod:`.http_head`) into exchanges (:mod:`.http_exchange`), hands each to the door
when the answers before it have left, and has an end for everything that a stranger may leave open. A head has
``MAX_HEAD_BYTES``; head and body have ``READ_S`` seconds each, and so has a client that says nothing; a kept
connection may rest for ``KEEP_ALIVE_S``. Who is slower is cut off. How large a body may be is the business of
the door; what its chunks may have beside the data is ``MAX_BESIDE_BYTES``, and trailers are dropped: nobody
has looked at them before us, so they are never headers (RFC 9110, 6.5.1). A few requests are read ahead, and
none is begun while a client does not take what it was sent.

``Upgrade`` may be ignored by whoever does not speak what is offered (RFC 9110, 7.8), and Java's own client
offers ``h2c`` with the first request of every connection. The parser stops at such a head and takes the body
for the other protocol's; so a new parser gets the head again without the offer, and the request is served.

A door may refuse at the head (:mod:`.http_refusals`): then nothing is made of the request, and its body is
dropped as it arrives. What is not HTTP at all is refused in the shape that errors have everywhere.

A connection that is closed with unread bytes is reset, and with the reset goes the answer that its client
would have read. So where a connection ends before a body has come to its end, what comes is taken and
forgotten for ``_LINGER_S`` or ``LINGER_BYTES``, or until the client has closed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import Any, Final, cast

import httptools
import structlog

from .http_doors import Doors
from .http_endings import CutOff, Deaf, has_unread, last_word
from .http_exchange import Exchange, Header
from .http_head import Fault, RefusedError, check, path_of, size, without_offer
from .http_refusals import no_request
from .http_sending import Sender

MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and headers: room for 8 KiB of baggage, a large token, and as much again of what proxies add.
"""
MAX_BESIDE_BYTES: Final = 2 * 1024 * 1024
"""Sizes, extensions and trailers of the chunks of a body: room for the largest one in chunks of a byte."""
READ_S: Final = 60.0
"""Seconds for a head to arrive, and for a body."""
KEEP_ALIVE_S: Final = 75.0
"""Seconds between two requests; nginx keeps its own connections to upstreams for 60, and the one who keeps
them longer is not the one who sends into a closing one.
"""
_AHEAD: Final = 8
"""Requests that are read behind the one under way: who does not read does not notice that a client leaves."""
_LINGER_S: Final = 5.0
_LAST_S: Final = 1.0
"""Seconds for a request that is on its way when the server leaves."""
_NOT_HTTP: Final = "400 Bad Request", "this is not HTTP/1.1"
_TOO_LARGE: Final = (
    "431 Request Header Fields Too Large",
    f"request line and headers may have at most {MAX_HEAD_BYTES} bytes",
)
_TOO_MUCH_BESIDE: Final = (
    "400 Bad Request",
    f"chunks may have at most {MAX_BESIDE_BYTES} bytes beside their data",
)

log = structlog.get_logger()


class Connection(asyncio.Protocol):
    """One client, from its first byte to its last."""

    peer: str | None = None

    def __init__(self, doors: Doors, loop: asyncio.AbstractEventLoop) -> None:
        self._doors = doors
        self._loop = loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything is read
        self._sender: Sender = None  # type: ignore[assignment]  # with it
        self._parser = self._new_parser()
        self._queue: deque[Exchange] = deque()  # the first is being answered
        self._coming: Exchange | None = None  # whose body arrives; None also while one is dropped
        self._url = b""
        self._headers: list[Header] = []
        self._in_head = self._in_body = False
        self._read_by = inf  # for what is being read
        self._later = self._size = self._beside = 0
        self._cut_off = CutOff(loop, self._cut)
        self._is_new = True
        self._ends = False  # with the answer that was sent
        self._rest: asyncio.TimerHandle | None = None
        self._paused = False
        self._room: asyncio.Future[None] | None = None  # while the client does not read

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._sender = Sender(self._doors.turn, transport)
        address = transport.get_extra_info("peername")
        if isinstance(address, tuple) and address:
            self.peer = str(address[0])
        self._doors.connections.add(self)
        self._cut_off.at(self._loop.time() + (_LAST_S if self._doors.leaving else READ_S))

    def data_received(self, data: bytes) -> None:
        """Bytes of any number of requests."""
        goes_on = self._in_head
        self._size = len(data)
        if goes_on:
            self._later += self._size
        elif self._in_body:
            self._beside += self._size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
            return
        except httptools.HttpParserError as fault:
            why = fault.__context__
            self._refuse(why.fault if isinstance(why, RefusedError) else _NOT_HTTP)
            return
        if self._in_head:
            if self._later > MAX_HEAD_BYTES:
                self._refuse(_TOO_LARGE)
                return
            if not goes_on:
                self._read_by = self._loop.time() + READ_S
        elif self._in_body and self._beside > MAX_BESIDE_BYTES:
            self._refuse(_TOO_MUCH_BESIDE)
            return
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or was closed."""
        self._cut_off.cancel()
        self._stop_resting()
        for exchange in self._queue:
            exchange.leave()
        self._queue.clear()
        self.resume_writing()
        self._doors.gone(self)
        self._parser = None  # the two would keep each other

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
        self._is_new = False
        self._later = 0

    def on_url(self, url: bytes) -> None:
        """A piece of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; spaces and tabs around its value are no part of it, and the parser leaves some."""
        if self._in_head:  # what comes later is a trailer
            self._headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        if self._later + self._size > MAX_HEAD_BYTES and size(self._url, self._headers) > MAX_HEAD_BYTES:
            raise RefusedError(_TOO_LARGE)
        parser = self._parser
        if parser.should_upgrade():
            return
        headers, version = self._headers, parser.get_http_version()
        check(version, headers)
        path, keep = path_of(self._url), parser.should_keep_alive()
        self._in_body = True
        self._beside = 0
        self._read_by = inf
        if self._ends:
            return
        is_next = not self._queue and self._room is None
        if not is_next or not self._is_refused(path, headers, keep=keep):
            self._stop_resting()
            method = parser.get_method().decode("ascii")
            keep_alive = keep and version != "1.0"
            self._coming = Exchange(self, method, path, headers, version=version, keep_alive=keep_alive)
            self._queue.append(self._coming)
        if len(self._queue) > _AHEAD:
            self.pause()
        else:
            self._go_on(asked=is_next)

    def on_body(self, part: bytes) -> None:
        """A piece of a body."""
        self._beside -= len(part)
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

    def post(self, data: bytes) -> None:
        """See ``http_exchange.Line``."""
        self._sender.post(data)

    def write(self, data: bytes) -> None:
        """See ``http_exchange.Line``."""
        self._sender.write(data)

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
        if self._paused and self._rest is None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def answered(self, exchange: Exchange, *, close: bool) -> None:
        """See ``http_exchange.Line``."""
        assert self._queue[0] is exchange
        self._queue.popleft()
        if close:
            self._leave()
        else:
            self._go_on()
            self._settle()

    # The server's side

    def close_when_idle(self) -> None:
        """Closes now, or with the answer under way, or with the answer to what is on its way."""
        for exchange in self._queue:
            exchange.keep_alive = False
        if self._queue or self._transport.is_closing():
            return
        if self._is_new or self._in_head or has_unread(self._transport):
            self._read_by = self._loop.time() + _LAST_S
            self._cut_off.at(self._read_by)
        else:
            self._sender.close()

    def abort(self) -> None:
        """Ends at once."""
        self._transport.abort()

    def _go_on(self, *, asked: bool = False) -> None:
        """Begins what waits, where the client takes what it was sent. ``asked``: whether it may begin."""
        if self._room is not None or self._ends or self._transport.is_closing():
            return
        if self._queue and not self._queue[0].started:
            first = self._queue[0]
            if asked or not self._is_refused(first.path, first.lines, keep=first.keep_alive):
                self._doors.start(first)
            else:
                self._queue.popleft()
                if first is self._coming:
                    self._coming = None
                self._go_on()
                return
        if len(self._queue) <= _AHEAD:
            self.resume()

    def _settle(self) -> None:
        """How long the connection may stay as it is now."""
        if self._in_body:
            if self._read_by == inf:
                self._read_by = self._loop.time() + READ_S
            self._cut_off.at(self._read_by)
        elif self._queue:
            self._cut_off.never()
        elif self._in_head:
            self._cut_off.at(self._read_by)
        else:
            self._cut_off.at(self._loop.time() + KEEP_ALIVE_S)

    def _cut(self) -> None:
        if self._room is None:
            self._sender.close()
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
        head = without_offer(method, self._url, self._parser.get_http_version(), self._headers)
        self._parser = self._new_parser()
        self.data_received(head + rest)

    def _is_refused(self, path: str, headers: list[Header], *, keep: bool) -> bool:
        """Before anything is made of a request; its body is dropped."""
        refusal = self._doors.refusal(path, headers, keep=keep and not self._doors.leaving)
        if refusal is None:
            return False
        answer, stays, rest_s = refusal
        self._sender.post(answer)
        if stays:
            if rest_s and self._rest is None:
                self.pause()
                self._rest = self._loop.call_later(rest_s, self._rested)
        else:
            self._ends = True
            self._loop.call_soon(self._leave)  # once it is known whether there is a body
        return True

    def _rested(self) -> None:
        self._rest = None
        if len(self._queue) <= _AHEAD:
            self.resume()

    def _stop_resting(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _leave(self) -> None:
        """Ends the connection behind the answer that was sent last."""
        self._ends = True
        if self._in_body:
            self._linger()
            return
        self._sender.close()
        if self._room is not None:  # an answer that nobody reads does not keep it open
            self._cut_off.at(self._loop.time() + KEEP_ALIVE_S)

    def _linger(self) -> None:
        """Ends the connection when its client has read the answer."""
        if not self._transport.is_closing():
            self._ends = True
            self._sender.flush()
            last_word(self._transport, self)
            self.resume()
            self._cut_off.at(self._loop.time() + (_LINGER_S if self._room is None else KEEP_ALIVE_S))

    def _refuse(self, fault: Fault) -> None:
        """Answers, and hears no more of this connection."""
        if self._ends or self._transport.is_closing():
            return
        status, message = fault
        log.warning("http.refused", reason=message, peer=self.peer)
        broken = self._coming
        if broken is not None and not broken.done:
            broken.leave()
            self._queue.remove(broken)
        if self._queue:  # what came before is answered, and only that
            self._transport.set_protocol(Deaf(self, self._transport))
            self._queue[-1].keep_alive = False
            self._cut_off.never()
            return
        if not self._in_body or (broken is not None and not broken.done):  # else its answer has left
            self._sender.write(no_request(status, message))
        self._linger()
