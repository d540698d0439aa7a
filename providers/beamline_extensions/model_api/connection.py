"""One HTTP/1.1 connection to a model API, as an asyncio protocol around llhttp's parser (httptools).

The general-purpose connection below the SDKs takes more than half of a call's CPU time (docs/performance.md),
so this one does less: one request at a time, no pipelining, no upgrades, no compression. Everything in the
answer is bounded: head, body, and what lies unread (reading pauses above that, so a slow reader holds back
the model instead of filling memory).

A connection is used again only after an answer that was read to its end and that allows it; in every other
case (an error, a cancelled call, a reader that left) it is closed, which is how the other side learns that
nobody waits any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, cast

import httpx2
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_HEAD_BYTES: Final = 256 * 1024
"""What may arrive before a head is complete; the first piece may hold some of the body as well."""
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
UNREAD_BYTES: Final = 256 * 1024
_DROPPED: Final = frozenset({b"set-cookie", b"transfer-encoding"})
"""Cookies would travel from one tenant's request to the next; the framing is undone here."""


class GarbageError(httpx2.RemoteProtocolError):
    """What came is not an HTTP answer, or one beyond the bounds."""


class Connection(asyncio.Protocol):
    """``head`` then ``body``, once per request. ``idle_since`` is the loop's time when it became free."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.reusable = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: deque[bytes] = deque()
        self._fault: httpx2.TransportError | None = None
        self._asked = self._has_head = self._done = self._paused = False
        self._until_close = True
        self._head_bytes = self._body_bytes = self._unread = 0

    @property
    def usable(self) -> bool:
        """Whether another request may be sent: open, and nothing came that nobody asked for."""
        return self._transport is not None and not self._transport.is_closing() and self._fault is None

    async def ask(self, head: bytes, body: bytes) -> None:
        """Sends a request and returns when the answer's head is there.

        Raises :class:`httpx2.TransportError`.
        """
        self.status, self.headers = 0, []
        self._asked, self._has_head, self._done = True, False, False
        self._until_close = True
        self._head_bytes = self._body_bytes = self._unread = 0
        assert self._transport is not None
        self._transport.write(head + body)
        while not self._has_head:
            if self._fault is not None:
                raise self._fault
            await self._more()
        if self._fault is not None and not self._done and not self._chunks:
            raise self._fault

    async def read(self) -> bytes:
        """More of the body; empty at its end. Raises :class:`httpx2.TransportError`."""
        while not self._chunks:
            if self._done:
                return b""
            if self._fault is not None:
                raise self._fault
            await self._more()
        data = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        self._unread = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived."""
        return self._done

    def finish(self) -> bool:
        """The reader has finished. True where the connection may be used again; otherwise it is closed."""
        self._asked = False
        if self._done and self.reusable and not self._chunks and self.usable:
            return True
        self.abort()
        return False

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break(self, fault: httpx2.TransportError) -> None:
        if self._fault is None:
            self._fault = fault
        self.abort()
        self._wake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self._break(GarbageError("the server sent what nobody asked for"))
            return
        if not self._has_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._break(GarbageError("the head of the answer is too large"))
                return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._break(GarbageError("the answer is not HTTP/1.1"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._has_head and not self._done and self._until_close and exc is None and self._fault is None:
            self._done, self.reusable = True, False
        elif self._fault is None:
            self._fault = httpx2.RemoteProtocolError(
                "the server closed the connection before the answer's end"
            )
        self._wake()

    # httptools

    def on_message_begin(self) -> None:
        if self._done:
            raise HttpParserError("a second answer to one request")
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in {b"content-length", b"transfer-encoding"}:
            self._until_close = False
        if name == b"content-encoding" and value.lower() != b"identity":
            raise HttpParserError("compressed, though nobody asked for that")
        if name not in _DROPPED:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return
        self.status = status
        self.reusable = self._parser.should_keep_alive()
        self._has_head = True
        self._wake()

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES:
            raise HttpParserError("the answer is too large")
        self._chunks.append(data)
        self._unread += len(data)
        if self._unread > UNREAD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._has_head:
            self._done = True
            self._wake()
