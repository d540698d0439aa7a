"""The NATS door: ``beamline.router.v1.invoke`` in queue group ``beamline-router``.

nats-py serves a subscription's callback one message at a time, so the callback only starts a task;
admission (:class:`.serving.Serving`) bounds how many there are, and what is above gets its refusal at once.
A message without a reply subject is not executed: a provider would be paid for an answer that nobody can
receive.

Shutdown: :meth:`NatsDoor.drain` ends the subscription and hands over what had arrived, then waits for the
tasks; the connection must outlive it, because the answers still need it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import orjson
import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import QUEUE_ROUTER, SUBJECT_INVOKE

from .serving import Served, Serving

log = structlog.get_logger()

_PENDING_MESSAGES: Final = 65_536
_PENDING_BYTES: Final = 256 * 1024 * 1024
_DRAIN_S: Final = 5.0
_FLUSH_S: Final = 2


class NatsDoor:
    """Serves requests that come over NATS."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._subscription: Subscription | None = None
        self._nc: Client | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self, nc: Client) -> None:
        """Subscribes; after a reconnect nats-py subscribes again by itself."""
        self._nc = nc
        self._subscription = await nc.subscribe(
            SUBJECT_INVOKE,
            queue=QUEUE_ROUTER,
            cb=self._arrived,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )
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
        _, late = await asyncio.wait(tuple(self.tasks), timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("request.cancelled_at_shutdown", count=len(late))
            await asyncio.wait(late, timeout=1.0)

    async def _arrived(self, message: Msg) -> None:
        if not message.reply:
            log.debug("request.without_reply_subject")
            return
        task = asyncio.get_running_loop().create_task(self._serve(message))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, message: Msg) -> None:
        given = message.headers
        headers = {str(name).lower(): str(value) for name, value in given.items()} if given else {}
        served = await self._serving.serve("nats", message.data, headers)
        await self._answer(message, served)

    async def _answer(self, message: Msg, served: Served) -> None:
        nc = self._nc
        assert nc is not None
        body = served.body()
        if len(body) > nc.max_payload:
            body = _too_large_to_answer(served, nc.max_payload)
        try:
            await nc.publish(message.reply, body)
        except errors.Error as error:
            # Nobody can be told: the connection is gone, and a buffered answer would come after its deadline.
            log.warning(
                "request.answer_lost", request_id=served.envelope.request_id, error=type(error).__name__
            )


def _too_large_to_answer(served: Served, limit: int) -> bytes:
    error = WireError.of(
        ErrorCode.INTERNAL,
        f"the answer is larger than the {limit} bytes that NATS carries here; use HTTP for it",
        retryable=False,
        request_id=served.envelope.request_id,
    )
    return orjson.dumps({"error": error.to_wire()})


async def _ending(subscription: Any) -> None:
    """nats-py has no types for it."""
    await subscription.drain()
