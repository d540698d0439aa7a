"""Streams over NATS: ``core.stream_port.Streams`` on a nats-py client.

One wildcard subscription takes the chunks of all streams; a stream is a token below it and a queue. The
callback only files what has come, so no stream waits for another's reader. A queue can't grow without bound:
a sender is granted ``WINDOW`` chunks beyond what was read, and one that sends more than twice that has not
kept to it and is cut off.

The provider names a control subject in its opening message (docs/wire-contract.md, "Streams"). There it hears
how many chunks were read, at the latest after half a window, and ``{"cancel": true}`` when the stream was
closed before its end. A provider that has not opened its stream, because it does not stream or has not come
to it, hears on its cancel subject that the call was given up, as with a plain request. A stream that was
forgotten before its opening message came is cancelled when it does come, and so is one whose cancel was lost
when its next chunk comes: an answer that nobody waits for is not paid for.

A connection that is lost ends all its streams with DISCONNECTED: chunks may have been lost with it, and an
answer with a hole is worse than none. For SETTLE_S after a reconnect it is not believed that nobody listens,
as with a plain request: extensions may not have subscribed again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import orjson
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_contract.names import (
    HEADER_STREAM_CONTROL,
    HEADER_STREAM_END,
    HEADER_STREAM_SEQUENCE,
    cancel_subject,
    subject_fault,
)

from ..core.ports import TransportFault
from ..core.stream_port import WINDOW, Chunk, ReplyStream, StreamFault
from .nats_transport import FAULTS, SERVICE_ERROR, SERVICE_ERROR_CODE, SETTLE_S, given_up, service_error

_PENDING_MESSAGES: Final = 65_536
_PENDING_BYTES: Final = 256 * 1024 * 1024
_HEADER_FRAME: Final = len("NATS/1.0\r\n\r\n")
_LINE_FRAME: Final = len(": \r\n")
_INBOXES: Final = "_INBOX."
_CANCEL: Final = b'{"cancel":true}'
_EMPTY: Final = (b"{}", b"")
_EXPECTED: Final = tuple(FAULTS)

_NONE: Final[Mapping[str, str]] = {}

_Item = Chunk | TransportFault | StreamFault


class NatsStreams:
    """Without a client (yet), every stream is DISCONNECTED."""

    def __init__(self, nc: Client | None = None) -> None:
        self._nc = nc
        self._inbox = ""
        self._lock = asyncio.Lock()
        self._open: dict[str, _Stream] = {}
        self._last = 0
        self._reconnects = 0 if nc is None else nc.stats["reconnects"]
        self._settled_at = 0.0

    def attach(self, nc: Client) -> None:
        """Gives the connection, once there is one; streams of an earlier one end."""
        self._nc = nc
        self._inbox = ""
        self._reconnects = nc.stats["reconnects"]
        self.disconnected()

    def disconnected(self) -> None:
        """The connection was lost: every open stream ends."""
        for stream in tuple(self._open.values()):
            stream.put(TransportFault.DISCONNECTED)

    async def open(
        self, subject: str, payload: bytes, headers: Mapping[str, str]
    ) -> ReplyStream | TransportFault:
        """See the port. Raises :class:`ValueError` for a malformed subject."""
        nc = self._nc
        fault = subject_fault(subject)
        if fault is not None:
            raise ValueError(f"NATS can't carry this subject: it {fault}")
        if nc is None or not nc.is_connected:
            return TransportFault.DISCONNECTED
        size = sum(len(name) + len(value.encode()) + _LINE_FRAME for name, value in headers.items())
        if len(payload) + size + _HEADER_FRAME > nc.max_payload:
            return TransportFault.TOO_LARGE
        if nc.stats["reconnects"] != self._reconnects:
            self._reconnects = nc.stats["reconnects"]
            self._settled_at = time.monotonic() + SETTLE_S
        token = ""
        try:
            inbox = await self._subscribed(nc)
            self._last += 1
            token = str(self._last)
            stream = self._open[token] = _Stream(self, nc, token, cancel_subject(subject), given_up(headers))
            await nc.publish(subject, payload, reply=f"{inbox}.{token}", headers=dict(headers))
        except _EXPECTED as error:
            self._open.pop(token, None)
            return next(FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS)
        except BaseException:
            self._open.pop(token, None)
            raise
        return stream

    def nobody_listens(self) -> TransportFault:
        """What it means that NATS found no responders now."""
        settled = time.monotonic() >= self._settled_at
        return TransportFault.NO_RESPONDERS if settled else TransportFault.DISCONNECTED

    def forget(self, token: str) -> None:
        """Called by a stream that is closed."""
        self._open.pop(token, None)

    async def _subscribed(self, nc: Client) -> str:
        async with self._lock:
            if not self._inbox:
                inbox = nc.new_inbox()
                await nc.subscribe(
                    f"{inbox}.*",
                    cb=self._arrived,
                    pending_msgs_limit=_PENDING_MESSAGES,
                    pending_bytes_limit=_PENDING_BYTES,
                )
                self._inbox = inbox
            return self._inbox

    async def _arrived(self, message: Msg) -> None:
        stream = self._open.get(message.subject.rpartition(".")[2])
        headers = message.headers or _NONE
        if stream is not None:
            stream.arrived(message.data, headers)
        elif self._nc is not None:
            # Of a stream that was cancelled a few more are under way; of one whose cancel was lost with the
            # connection they are the only way to say it again.
            told_at = _control_of(headers) or _inbox(message.reply)
            if told_at is not None:
                await control(self._nc, told_at, _CANCEL)


class _Stream:
    """One stream. ``_unread`` holds what has come, up to the first fault or the end."""

    def __init__(
        self, owner: NatsStreams, nc: Client, token: str, given_up_at: str, word: bytes | None
    ) -> None:
        self._owner = owner
        self._nc = nc
        self._token = token
        self._given_up_at = given_up_at
        self._word = word
        self._reconnects = nc.stats["reconnects"]
        self._unread: deque[_Item] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._control: str | None = None
        self._expected = 0
        self._read = 0
        self._told = 0
        self._over = False
        self._broken = False

    async def next(self, timeout_s: float) -> Chunk | TransportFault | StreamFault:
        """See the port."""
        if not self._unread:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._waiter
            except TimeoutError:
                lost = self._nc.stats["reconnects"] != self._reconnects or not self._nc.is_connected
                return TransportFault.DISCONNECTED if lost else TransportFault.TIMED_OUT
            finally:
                self._waiter = None
        item = self._unread.popleft()
        self._read += 1
        if self._control is not None and not self._over and self._read - self._told >= WINDOW // 2:
            self._told = self._read
            await control(self._nc, self._control, b'{"read":%d}' % self._read)
        return item

    async def close(self) -> None:
        """See the port."""
        self._owner.forget(self._token)
        if self._over:
            return
        if self._control is not None:
            await control(self._nc, self._control, _CANCEL)
        elif self._word is not None:
            await control(self._nc, self._given_up_at, self._word)

    def arrived(self, payload: bytes, headers: Mapping[str, str]) -> None:
        """One message of the stream."""
        if self._over or self._broken:
            return
        sequence = headers.get(HEADER_STREAM_SEQUENCE)
        if sequence is None:
            self._whole(payload, headers)
        elif sequence != str(self._expected):
            self.put(StreamFault.GAP)
        elif self._expected == 0:
            if not _opens(payload, headers):
                self.put(StreamFault.UNOPENED)
                return
            self._expected = 1
            self._control = _control_of(headers)
        elif len(self._unread) >= 2 * WINDOW:
            self.put(StreamFault.OVERRUN)
        else:
            self._expected += 1
            last = HEADER_STREAM_END in headers
            self.put(Chunk(payload, last=last))
            self._over = last

    def put(self, item: _Item) -> None:
        """Files an item and wakes the reader. After a fault nothing more is taken."""
        self._broken = self._broken or not isinstance(item, Chunk)
        self._unread.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _whole(self, payload: bytes, headers: Mapping[str, str]) -> None:
        """An ordinary reply: of a provider that does not stream, of NATS itself, or an error at the end."""
        self._over = True
        if headers.get("Status") == "503" and not payload:
            self.put(self._owner.nobody_listens())
            return
        if SERVICE_ERROR_CODE in headers:
            payload = service_error(payload, str(headers[SERVICE_ERROR_CODE]), headers.get(SERVICE_ERROR))
        self.put(Chunk(payload, last=True, whole=True))


def _control_of(headers: Mapping[str, str]) -> str | None:
    """Where a provider hears: an inbox and nothing else, so that no provider has us publish elsewhere."""
    return _inbox(headers.get(HEADER_STREAM_CONTROL))


def _inbox(stated: str | None) -> str | None:
    return stated if stated is not None and stated.startswith(_INBOXES) else None


def _opens(payload: bytes, headers: Mapping[str, str]) -> bool:
    """Whether message 0 is an opening and no more: what it said besides would be lost."""
    if HEADER_STREAM_END in headers:
        return False
    try:
        return payload in _EMPTY or orjson.loads(payload) == {}
    except orjson.JSONDecodeError:
        return False


async def control(nc: Client, subject: str, payload: bytes) -> None:
    """Tells a provider something; where that fails, its deadline ends its work."""
    with suppress(errors.Error):
        await nc.publish(subject, payload)
