"""The NATS door: ``beamline.router.v1.invoke`` in queue group ``beamline-router``.

The callback of the subscription only starts a task (nats-py serves callbacks one message at a time, the hot
path calls them inside of a read); admission (:class:`.serving.Serving`) bounds how many there are, and what
is above gets its refusal at once.
A message without a reply subject is not executed: a provider would be paid for an answer that nobody can
receive. What an answer looks like, streamed or not, is :mod:`.nats_answers`' business; the door keeps the one
subscription on which callers say what they have read of their streams, and that they have left.

Shutdown: :meth:`NatsDoor.drain` ends the subscription and hands over what had arrived, then waits for the
tasks; the connection must outlive it, because the answers still need it. Whoever is not answered when the
grace is over is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import orjson
import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import QUEUE_ROUTER, SUBJECT_INVOKE
from beamline_sdk.streams import StreamSenders

from ..core.api_keys import without_keys
from .nats_answers import NatsAnswer
from .serving import Served, Serving

log = structlog.get_logger()

_PENDING_MESSAGES: Final = 65_536
_PENDING_BYTES: Final = 256 * 1024 * 1024
_DRAIN_S: Final = 5.0
_FLUSH_S: Final = 2
_SHUT_DOWN: Final = WireError.of(ErrorCode.STREAM_INTERRUPTED, "the router had to end before the stream did")
_GONE: Final = WireError.of(ErrorCode.UNAVAILABLE, "the router had to end before the answer came")

Arrived = Callable[[bytes, Mapping[str, str], bytes], None]
"""Gets (reply subject or empty, headers in lower case, payload) of one message."""


class Line(Protocol):
    """What the door needs of a connection. Implementations: :class:`PlainLine`, ``fast_nats.FastLine``."""

    @property
    def max_payload(self) -> int:
        """The server's limit in bytes."""
        ...

    async def subscribe(self, subject: str, queue: str, arrived: Arrived) -> Subscription:
        """Calls ``arrived`` for each message, in their order."""
        ...

    async def publish(self, subject: bytes, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Sends a message now. Raises a nats-py error where it can't leave now."""
        ...

    def send(self, subject: bytes, payload: bytes, headers: Mapping[str, str] | None = None) -> bool:
        """As :meth:`publish`, without waiting; False where that is not possible here."""
        ...


class PlainLine:
    """A line by nats-py alone."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    @property
    def max_payload(self) -> int:
        """See :class:`Line`."""
        return int(self._nc.max_payload)

    async def subscribe(self, subject: str, queue: str, arrived: Arrived) -> Subscription:
        """See :class:`Line`."""

        async def callback(message: Msg) -> None:
            given = message.headers
            headers = {str(name).lower(): str(value) for name, value in given.items()} if given else {}
            arrived(message.reply.encode(), headers, message.data)

        return await self._nc.subscribe(
            subject,
            queue=queue,
            cb=callback,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )

    async def publish(self, subject: bytes, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """See :class:`Line`."""
        await self._nc.publish(subject.decode(), payload, headers=dict(headers) if headers else None)

    def send(self, subject: bytes, payload: bytes, headers: Mapping[str, str] | None = None) -> bool:
        """See :class:`Line`: nats-py only sends in a coroutine."""
        del subject, payload, headers
        return False


class NatsDoor:
    """Serves requests that come over NATS. ``line_of`` makes a :class:`Line` of a connection."""

    def __init__(self, serving: Serving, line_of: Callable[[Client], Line] = PlainLine) -> None:
        self._serving = serving
        self._line_of = line_of
        self._line: Line | None = None
        self._subscription: Subscription | None = None
        self._nc: Client | None = None
        self._streams = StreamSenders(self._publish)
        self.tasks: dict[int, asyncio.Task[None]] = {}
        """What is being answered. Each takes itself out at its end: a callback would be one more turn of the
        loop for each request.
        """
        self._last = 0

    async def open(self, nc: Client) -> None:
        """Subscribes; after a reconnect nats-py subscribes again by itself."""
        self._nc = nc
        self._line = self._line_of(nc)
        controls = nc.new_inbox()
        await nc.subscribe(f"{controls}.*", cb=self._told, pending_msgs_limit=_PENDING_MESSAGES)
        self._streams.control_prefix = controls
        self._subscription = await self._line.subscribe(SUBJECT_INVOKE, QUEUE_ROUTER, self._arrived)
        # Until the server has answered, others may not see us. If the connection is lost meanwhile, nats-py
        # subscribes again when it is back.
        with suppress(errors.Error):
            await nc.flush(_FLUSH_S)

    async def drain(self, grace_s: float) -> None:
        """No new requests; those that had arrived are served, for at most ``grace_s`` seconds. Never
        raises.
        """
        subscription, self._subscription = self._subscription, None
        if subscription is not None and self._nc is not None and self._nc.is_connected:
            try:
                await asyncio.wait_for(_ending(subscription), min(_DRAIN_S, grace_s))
            except (TimeoutError, errors.Error) as error:
                log.debug("request.drain_incomplete", error=type(error).__name__)
        if not self.tasks:
            return
        _, late = await asyncio.wait(tuple(self.tasks.values()), timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("request.cancelled_at_shutdown", count=len(late))
            await asyncio.wait(late, timeout=1.0)

    def _arrived(self, reply: bytes, headers: Mapping[str, str], payload: bytes) -> None:
        if not reply:
            log.debug("request.without_reply_subject")
            return
        refusal = self._serving.shed("nats")
        if refusal is not None:
            self._send_now(reply, refusal.plain % self._serving.id_of(headers))
            return
        self._last = number = self._last + 1
        self._start(number, self._serve(number, reply, headers, payload))

    def _start(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        # As loop.create_task does it, less a new name for each task.
        self.tasks[number] = asyncio.Task(work, loop=asyncio.get_running_loop(), name="nats request")

    def _send_now(self, reply: bytes, body: bytes) -> None:
        """For refusals: an overloaded router makes no task for what it does not execute, where it can."""
        line = self._line
        assert line is not None
        if not line.send(reply, body):
            self._last = number = self._last + 1
            self._start(number, self._send_if_possible(number, line, reply, body))

    async def _send_if_possible(self, number: int, line: Line, reply: bytes, body: bytes) -> None:
        try:
            await line.publish(reply, body)
        except errors.Error as error:
            log.debug("request.refusal_lost", error=type(error).__name__)
        finally:
            self.tasks.pop(number, None)

    async def _serve(self, number: int, reply: bytes, headers: Mapping[str, str], payload: bytes) -> None:
        line, serving = self._line, self._serving
        assert line is not None
        try:
            key = serving.admit("nats", headers)
            if "authorization" in headers or "x-api-key" in headers:
                headers = without_keys(dict(headers))
            answer = NatsAnswer(self._streams, reply, headers, line.max_payload)
            try:
                if isinstance(key, WireError):
                    served = serving.refuse("nats", headers, key)
                else:
                    served = await serving.serve("nats", payload, headers, key=key, sink_of=answer.sink_of)
            except asyncio.CancelledError:
                if answer.left():
                    await answer.give_up(WireError.of(ErrorCode.CANCELLED, "the caller left"))
                    return
                await answer.give_up(_SHUT_DOWN)
                if not answer.streams:
                    gone = _GONE.at(request_id=serving.id_of(headers).decode())
                    await self._send_if_possible(number, line, reply, orjson.dumps({"error": gone.to_wire()}))
                raise
            body = answer.whole(served)
            if body is None:
                await answer.finish(served)
                return
            back = answer.context(served, body) if headers else None
            if not line.send(reply, body, back):
                await self._answer_by_publish(line, reply, body, served, back)
        finally:
            self.tasks.pop(number, None)

    async def _answer_by_publish(
        self, line: Line, reply: bytes, body: bytes, served: Served, headers: Mapping[str, str] | None
    ) -> None:
        try:
            await line.publish(reply, body, headers)
        except errors.Error as error:
            # Nobody can be told: the connection is gone, and a buffered answer would come after its deadline.
            log.warning(
                "request.answer_lost", request_id=served.envelope.request_id, error=type(error).__name__
            )

    async def _told(self, message: Msg) -> None:
        self._streams.heard(message.subject, message.data, message.headers)

    async def _publish(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None, reply: str = ""
    ) -> None:
        assert self._nc is not None
        await self._nc.publish(subject, payload, reply, headers=headers)


async def _ending(subscription: Any) -> None:
    """nats-py has no types for it."""
    await subscription.drain()
