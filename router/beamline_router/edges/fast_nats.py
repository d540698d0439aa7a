"""The hot path of NATS: nats-py's connection, with what happens once per message replaced.

nats-py stays what it is for everything that is rare or delicate: connecting, TLS, credentials, pings,
reconnecting, subscribing anew, draining, and all subscriptions but two. What it does per message is built
for every use of NATS: a parser that runs regular expressions and awaits for each message, a queue and a task
per subscription, per request a random token, a future with a callback, and a timer. :class:`HotPath` takes
its place, once per connection:

- **In.** It stands in as the connection's parser (``Client._ps``, a slot with two methods). nats-py's read
  loop hands it whatever a read returned; a message for one of our two subscriptions (the inbox, the door) is
  handled on the spot, all others go the way they always went. Order holds inside each of the two ways, and
  a PONG is seen after all that came before it, so a flush is still a barrier.
- **Out.** What is published within one turn of the loop is written by one call at the end of the turn, after
  anything that nats-py itself has waiting: a subscription can't be overtaken by the request that needs it.
- **Replies.** A request's id is an integer, and the last token of its reply subject: one dictionary look-up
  finds the future. Who is answered, timed out, cancelled or cut off leaves the table in the same step, so a
  late or second reply finds nobody.
- **Time.** One timer serves all requests. It is armed for the earliest end that may be due, fires at most
  every 4 ms, ends what is over by the clock (never early, at most some 5 ms late), and is armed again only
  while anything waits. After a pause of the whole process (a frozen container, a machine that moves) what has
  arrived meanwhile is read first: the extensions did answer in time.

Outages. nats-py resets its parser in the very step in which it gives a connection up; that is where every
waiting request becomes DISCONNECTED and every unwritten byte is dropped: nothing that was published before
an outage leaves after it. A closed connection makes no such step, so the timer looks for it, ten times a
second. Where the socket takes nothing (a frozen server, which the pings notice within 6 s), what is already
with the socket is bounded by MAX_BACKLOG and further requests are refused at once. For SETTLE_S after a
reconnect "no responders" says nothing yet about the others, as in :mod:`.nats_transport`.

Everything runs on the event loop's thread. The private names of nats-py used here are listed in a test that
fails when one of them is gone; ``BEAMLINE_TRANSPORT=plain`` does without all of this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, cast

import orjson
import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from beamline_contract.names import cancel_subject

from ..core.headers import HeaderLines
from ..core.ports import TransportFault
from .fast_nats_codec import (
    FRAME,
    NO_RESPONDERS,
    Decoder,
    Encoder,
    Handler,
    Line,
    Message,
    Starts,
    StreamError,
    headers_of,
    publication,
    request_message,
)
from .nats_transport import SERVICE_ERROR, SERVICE_ERROR_CODE, SETTLE_S, given_up, service_error

log = structlog.get_logger()

SWEEP_S: Final = 0.004
"""The least time between two looks at what is over."""
LOOK_S: Final = 0.1
"""The longest time between two looks while a request waits: a connection may have been closed."""
LATE_S: Final = 0.1
"""A look that comes so much too late: this process stood still, and replies may be waiting in its socket."""
CATCH_UP_S: Final = 0.02
"""For reading them before anything is called over."""
MAX_BACKLOG: Final = 32 * 1024 * 1024
"""Bytes that may wait for a socket that does not take them; a healthy one has none for long."""

_KEY_SERVICE_ERROR: Final = SERVICE_ERROR.lower()
_KEY_SERVICE_CODE: Final = SERVICE_ERROR_CODE.lower()
_USABLE: Final = frozenset({Client.CONNECTED, Client.DRAINING_SUBS})

Outcome = bytes | TransportFault


class HotPath:
    """What replaces nats-py's per-message work on one connection. :meth:`of` gives the one of a client."""

    def __init__(self, nc: Client) -> None:
        self._nc: Any = nc  # most of what is used here is private to nats-py
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder()
        self._encoder = Encoder()
        self._before: Any = nc._ps
        self._out: list[bytes] = []
        self._socket: Any = None
        self._stuck = False
        self._waiting: dict[int, tuple[asyncio.Future[Outcome], float]] = {}
        self._last_id = 0
        self._inbox = b""
        self._starts = Starts(self._encoder, "")
        self._inbox_opening = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._catching_up = False
        self._returning = False
        self._settled_at = 0.0
        self.on_late: Callable[[], None] | None = None

    @classmethod
    def of(cls, nc: Client) -> HotPath:
        """The client's hot path, put in place on first use."""
        slot: Any = nc  # nats-py types it as its own parser
        if not isinstance(slot._ps, cls):
            slot._ps = cls(nc)
        return cast(HotPath, slot._ps)

    @property
    def usable(self) -> bool:
        """Whether what is sent now leaves now."""
        if self._nc._status not in _USABLE:
            return False
        if self._stuck:
            self._stuck = self._socket is not None and self._socket.get_write_buffer_size() > MAX_BACKLOG
        return not self._stuck

    # --- what nats-py's read loop and reconnect call -------------------------------------------------

    async def parse(self, data: bytes = b"") -> None:
        """Takes what a read returned. Raises nats-py's ProtocolError, which makes it reconnect."""
        if self._before is not None:
            data = bytes(self._before.buf) + data
            self._before = None
        if self._returning:
            self._returning = False
            self._settled_at = time.monotonic() + SETTLE_S
        try:
            rest = self._decoder.feed(data)
        except StreamError as fault:
            raise errors.ProtocolError from fault
        except Exception as fault:
            # nats-py would end its read loop and never read again; it is better off with a new connection.
            log.exception("nats.message_crashed")
            raise errors.ProtocolError from fault
        for one in rest:
            await self._pass_on(one)

    def reset(self) -> None:
        """The connection has been given up, or a new one begins."""
        self._before = None
        self._decoder.reset()
        self._out.clear()
        self._socket, self._stuck = None, False
        self._returning = True
        self._end_all()

    async def _pass_on(self, one: Message | Line) -> None:
        nc = self._nc
        if isinstance(one, Message):
            await nc._process_msg(one.sid, one.subject, one.reply, one.payload, one.head or None)
        elif one.operation == b"PING":
            await nc._process_ping()
        elif one.operation == b"PONG":
            await nc._process_pong()
        elif one.operation == b"INFO":
            await nc._process_info(orjson.loads(one.rest))
        elif one.operation == b"-ERR":
            await nc._process_err(one.rest.decode("utf-8", "replace").lower())

    # --- out -----------------------------------------------------------------------------------------

    def publish(self, subject: bytes, payload: bytes, headers: Mapping[str, str] | None = None) -> bool:
        """Sends a message with the end of this turn; False where there is no connection that takes it."""
        if not self.usable:
            return False
        head = self._encoder.head(headers) if headers else b""
        self._send(publication(subject, b"", head, payload))
        return True

    def _send(self, command: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(command)

    def _write(self) -> None:
        """One call to the socket for all that a turn of the loop has brought, nats-py's own first."""
        nc, out = self._nc, self._out
        if not out or not nc.is_connected:
            out.clear()
            return
        if nc._pending:
            out[:0] = nc._pending
            nc._pending, nc._pending_data_size = [], 0
        if self._socket is None:
            self._socket = nc._transport._io_writer.transport
        try:
            self._socket.write(out[0] if len(out) == 1 else b"".join(out))
            self._stuck = self._socket.get_write_buffer_size() > MAX_BACKLOG
        except (OSError, RuntimeError) as error:  # uvloop raises RuntimeError on a closed handle
            log.debug("nats.write_failed", error=type(error).__name__)
        out.clear()

    async def subscribe(self, subject: str, queue: str, handler: Handler) -> Subscription:
        """A subscription whose messages go to ``handler`` inside of the read. It is nats-py's own otherwise:
        it comes back after an outage, and ``drain()`` is over when all that had arrived was handed over.
        """
        subscription: Subscription = await self._nc.subscribe(subject, queue=queue, cb=_never)
        self._decoder.handlers[b"%d" % subscription._id] = handler
        return subscription

    # --- requests ------------------------------------------------------------------------------------

    async def request(
        self, subject: str, payload: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> Outcome:
        """As in the port."""
        if not self._inbox:
            await self._open_inbox()
        if not self._inbox or not self.usable:
            return TransportFault.DISCONNECTED
        if timeout_s <= 0:
            return TransportFault.TIMED_OUT
        self._last_id = number = self._last_id + 1
        if type(headers) is HeaderLines and (text := headers.text).isascii():
            size = len(text) + FRAME
            message = request_message(self._starts[subject], number, text, payload)
        else:
            target, head = self._encoder.subject(subject), self._encoder.head(headers)
            size = len(head)
            message = publication(target, b"%b%d" % (self._inbox, number), head, payload)
        if size + len(payload) > self._nc._max_payload:
            return TransportFault.TOO_LARGE
        future: asyncio.Future[Outcome] = self._loop.create_future()
        ends_at = time.monotonic() + timeout_s
        self._waiting[number] = (future, ends_at)
        if self._timer is None or ends_at < self._due_at - SWEEP_S:
            self._arm(timeout_s)
        self._send(message)
        try:
            return await future
        finally:
            if number in self._waiting:  # only a cancellation ends a request that is still in the table
                del self._waiting[number]
                word = given_up(headers)
                if word is not None:
                    self.publish(self._encoder.subject(cancel_subject(subject)), word)

    async def _open_inbox(self) -> None:
        async with self._inbox_opening:
            if self._inbox or not self.usable:
                return
            inbox = self._nc.new_inbox() + "."
            try:
                await self.subscribe(inbox + "*", "", self._replied)
            except errors.Error as error:  # it began to drain or to close: no requests any more
                log.debug("nats.no_inbox", error=type(error).__name__)
                return
            self._starts = Starts(self._encoder, inbox)
            self._inbox = inbox.encode()

    def _replied(self, subject: bytes, _reply: bytes, head: bytes, payload: bytes) -> None:
        digits = subject[len(self._inbox) :]
        found = self._waiting.pop(int(digits), None) if digits.isdigit() else None
        if found is None or found[0].done():
            if self.on_late is not None:
                self.on_late()
            return
        found[0].set_result(self._outcome(head, payload) if head else payload)

    def _outcome(self, head: bytes, payload: bytes) -> Outcome:
        if not payload and head.startswith(NO_RESPONDERS):
            settled = time.monotonic() >= self._settled_at
            return TransportFault.NO_RESPONDERS if settled else TransportFault.DISCONNECTED
        headers = headers_of(head)
        stated = headers.get(_KEY_SERVICE_CODE)
        return payload if stated is None else service_error(payload, stated, headers.get(_KEY_SERVICE_ERROR))

    # --- time ----------------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = min(max(seconds, SWEEP_S), LOOK_S)
        self._due_at = time.monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        if self._nc._status == Client.CLOSED:
            self._end_all()
        now = time.monotonic()
        if now - self._due_at > LATE_S and not self._catching_up:
            self._catching_up = True
            self._arm(CATCH_UP_S)
            return
        self._catching_up = False
        for number in [number for number, (_, ends_at) in self._waiting.items() if ends_at <= now]:
            self._end(number, TransportFault.TIMED_OUT)
        if self._waiting:
            self._arm(min(ends_at for _, ends_at in self._waiting.values()) - now)

    def _end_all(self) -> None:
        for number in tuple(self._waiting):
            self._end(number, TransportFault.DISCONNECTED)

    def _end(self, number: int, fault: TransportFault) -> None:
        future, _ = self._waiting.pop(number)
        if not future.done():
            future.set_result(fault)


class FastTransport:
    """``core.ports.Transport`` on a client's hot path. Without a client (yet), every request is
    DISCONNECTED. ``on_late`` is called for each reply that nobody waits for any more.
    """

    def __init__(self, nc: Client | None = None, on_late: Callable[[], None] | None = None) -> None:
        self._on_late = on_late
        self._path: HotPath | None = None
        self._nc: Client | None = None
        if nc is not None:
            self.attach(nc)

    def attach(self, nc: Client) -> None:
        """Gives the connection, once there is one, before anything was subscribed on it."""
        self._nc = nc
        self._path = HotPath.of(nc)
        if self._on_late is not None:
            self._path.on_late = self._on_late

    @property
    def connected(self) -> bool:
        """Whether a request would leave this process now."""
        return self._nc is not None and self._nc.is_connected

    def request(
        self, subject: str, payload: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> Coroutine[Any, Any, Outcome]:
        """See the port. Raises :class:`ValueError` for what no caller may send: a malformed subject or
        header.
        """
        path = self._path
        return _disconnected() if path is None else path.request(subject, payload, headers, timeout_s)


async def _disconnected() -> Outcome:
    return TransportFault.DISCONNECTED


class FastLine:
    """What the NATS door needs of a connection (:class:`.nats_door.Line`), on its hot path."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._path = HotPath.of(nc)

    @property
    def max_payload(self) -> int:
        """The server's limit in bytes."""
        return int(self._nc.max_payload)

    async def subscribe(
        self, subject: str, queue: str, arrived: Callable[[bytes, Mapping[str, str], bytes], None]
    ) -> Subscription:
        """Calls ``arrived`` with (reply subject, headers in lower case, payload), inside of the read."""

        def handler(_subject: bytes, reply: bytes, head: bytes, payload: bytes) -> None:
            arrived(reply, headers_of(head) if head else _NO_HEADERS, payload)

        return await self._path.subscribe(subject, queue, handler)

    async def publish(self, subject: bytes, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Sends a message now. Raises a nats-py error where it can't leave now."""
        if not self._path.publish(subject, payload, headers):
            raise errors.OutboundBufferLimitError

    def send(self, subject: bytes, payload: bytes, headers: Mapping[str, str] | None = None) -> bool:
        """Sends a message without waiting; False where there is no connection that takes it."""
        return self._path.publish(subject, payload, headers)


_NO_HEADERS: Final[Mapping[str, str]] = {}


async def _never(_message: Msg) -> None:
    """The callback that nats-py wants to have: the hot path takes its messages before they get there."""
