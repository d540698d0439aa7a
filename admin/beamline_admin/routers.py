"""Asking all running routers over NATS, on their admin subjects, and gathering what they answer.

One connection, opened with the first question and kept; NATS' client reconnects by itself. Nobody knows how
many routers there are, so answers are taken until none has come for :data:`QUIET_S`, and never for longer
than :data:`PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson
from nats import errors
from nats.aio.client import Client

from beamline_contract.names import SUBJECT_ROUTER_ADMIN
from beamline_sdk import link

PATIENCE_S: Final = 1.5
QUIET_S: Final = 0.25
MAX_ROUTERS: Final = 1_000


class RoutersError(Exception):
    """Routers can't be asked now; the message is for people."""


class Routers(Protocol):
    """All running routers."""

    async def ask(self, verb: str, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every answer, sorted by ``instance``; each has ``result`` or ``error``. Raises
        :class:`RoutersError`.
        """
        ...


class NatsRouters:
    """The routers on one NATS."""

    def __init__(self, settings: link.LinkSettings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._nc: Client | None = None

    async def close(self) -> None:
        """Closes the connection. More than once is fine."""
        nc, self._nc = self._nc, None
        if nc is not None:
            await link.close(nc, grace_s=1.0)

    async def ask(self, verb: str, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """See :class:`Routers`."""
        try:
            nc = await self._connected()
            subscription = await nc.subscribe(nc.new_inbox())
            try:
                await nc.publish(
                    f"{SUBJECT_ROUTER_ADMIN}.{verb}", orjson.dumps(request), reply=subscription.subject
                )
                return await _gather(subscription, one="instance" in request)
            finally:
                if nc.is_connected:
                    await subscription.unsubscribe()
        except (link.LinkError, errors.Error, OSError) as error:
            raise RoutersError(f"NATS does not answer ({type(error).__name__})") from error

    async def _connected(self) -> Client:
        async with self._lock:
            if self._nc is None or self._nc.is_closed:
                self._nc = await link.connect(self._settings, timeout_s=PATIENCE_S)
            if not self._nc.is_connected:
                raise RoutersError("NATS does not answer: the connection is being opened again")
            return self._nc


async def _gather(subscription: Any, *, one: bool) -> list[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    give_up, wait = loop.time() + PATIENCE_S, PATIENCE_S
    answers: list[dict[str, Any]] = []
    while len(answers) < MAX_ROUTERS and (left := min(wait, give_up - loop.time())) > 0:
        try:
            message = await subscription.next_msg(left)
        except (TimeoutError, errors.TimeoutError):
            break
        if message.headers and message.headers.get("Status") == "503":
            break
        try:
            found = orjson.loads(message.data)
        except orjson.JSONDecodeError:
            continue
        if isinstance(found, dict) and isinstance(found.get("instance"), str):
            answers.append(found)
            if one:
                break
        wait = QUIET_S
    return sorted(answers, key=lambda answer: str(answer["instance"]))
