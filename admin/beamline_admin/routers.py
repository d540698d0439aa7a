"""Asking all running routers over NATS, on their admin subjects, and gathering what they answer; sending them
a request; hearing what they publish. What changes them is noted by the operator's leader first.

One connection, opened with the first question and kept; NATS' client reconnects by itself. Nobody knows how
many routers there are, so answers are taken until none has come for :data:`QUIET_S`, and never for longer
than :data:`PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol

import orjson
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from beamline_contract.acts import ActNoted, RouterAct
from beamline_contract.names import SUBJECT_INVOKE, SUBJECT_OPERATOR_ACT, SUBJECT_ROUTER_ADMIN
from beamline_sdk import link

PATIENCE_S: Final = 1.5
QUIET_S: Final = 0.25
NOTE_S: Final = 6.0
"""A registry that does not answer says so within 5 s."""
MAX_ROUTERS: Final = 1_000


class RoutersError(Exception):
    """Routers can't be asked now; the message is for people."""


Enough = Callable[[dict[str, Any]], bool]


class Routers(Protocol):
    """All running routers."""

    async def ask(
        self, verb: str, request: Mapping[str, Any], enough: Enough | None = None
    ) -> list[dict[str, Any]]:
        """Every answer, sorted by ``instance``; each has ``result`` or ``error``. Raises
        :class:`RoutersError`. An answer that ``enough`` accepts ends the waiting for others.
        """
        ...

    async def note(self, act: RouterAct) -> ActNoted:
        """Has the operator's leader note an act in the audit log, before it is done. Raises
        :class:`RoutersError` where none answers.
        """
        ...

    async def invoke(
        self, request: Mapping[str, Any], headers: Mapping[str, str], seconds: float
    ) -> dict[str, Any]:
        """What one router answers to a request, as ``POST /v1/route`` answers it. Raises
        :class:`RoutersError`.
        """
        ...

    def stream(
        self, request: Mapping[str, Any], headers: Mapping[str, str], seconds: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """What one router answers to a request, in parts as they come; the last one is the reply without its
        text, or ``{"error": {...}}``. Who closes it early has left. Raises :class:`RoutersError`.
        """
        ...

    async def follow(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """Calls ``heard`` with what routers publish on ``subject``; once for each subject and connection.
        Raises :class:`RoutersError`.
        """
        ...


class NatsRouters:
    """The routers on one NATS."""

    def __init__(self, settings: link.LinkSettings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._nc: Client | None = None
        self._followed: set[str] = set()

    async def close(self) -> None:
        """Closes the connection. More than once is fine."""
        nc, self._nc = self._nc, None
        if nc is not None:
            await link.close(nc, grace_s=1.0)

    async def ask(
        self, verb: str, request: Mapping[str, Any], enough: Enough | None = None
    ) -> list[dict[str, Any]]:
        """See :class:`Routers`."""
        try:
            nc = await self._connected()
            subscription = await nc.subscribe(nc.new_inbox())
            try:
                await nc.publish(
                    f"{SUBJECT_ROUTER_ADMIN}.{verb}", orjson.dumps(request), reply=subscription.subject
                )
                one = (lambda _: True) if "instance" in request else enough
                return await _gather(subscription, one)
            finally:
                if nc.is_connected:
                    await subscription.unsubscribe()
        except (link.LinkError, errors.Error, OSError) as error:
            raise RoutersError(f"NATS does not answer ({type(error).__name__})") from error

    async def note(self, act: RouterAct) -> ActNoted:
        """See :class:`Routers`."""
        try:
            nc = await self._connected()
            body = act.model_dump_json(exclude_none=True).encode()
            reply = await nc.request(SUBJECT_OPERATOR_ACT, body, timeout=NOTE_S)
            return ActNoted.model_validate_json(reply.data)
        except (TimeoutError, errors.TimeoutError, errors.NoRespondersError) as error:
            raise RoutersError("no operator leads, so the audit log can't be told") from error
        except (link.LinkError, errors.Error, OSError) as error:
            raise RoutersError(f"NATS does not answer ({type(error).__name__})") from error
        except ValidationError as error:
            raise RoutersError("the operator answered something that can't be read") from error

    async def invoke(
        self, request: Mapping[str, Any], headers: Mapping[str, str], seconds: float
    ) -> dict[str, Any]:
        """See :class:`Routers`."""
        try:
            nc = await self._connected()
            body = orjson.dumps(request)
            reply = await nc.request(SUBJECT_INVOKE, body, timeout=seconds, headers=dict(headers))
            found = orjson.loads(reply.data)
        except (TimeoutError, errors.TimeoutError) as error:
            raise RoutersError(f"no router answered within {seconds:g} s") from error
        except errors.NoRespondersError as error:
            raise RoutersError("no router serves on this NATS") from error
        except (link.LinkError, errors.Error, OSError) as error:
            raise RoutersError(f"NATS does not answer ({type(error).__name__})") from error
        except orjson.JSONDecodeError as error:
            raise RoutersError("a router answered something that is not JSON") from error
        if not isinstance(found, dict):
            raise RoutersError("a router answered something that is not an object")
        return found

    async def stream(
        self, request: Mapping[str, Any], headers: Mapping[str, str], seconds: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """See :class:`Routers`."""
        from .router_stream import streamed  # noqa: PLC0415 -- it raises what this module defines

        try:
            nc = await self._connected()
            async with aclosing(streamed(nc, request, headers, seconds)) as parts:
                async for part in parts:
                    yield part
        except (link.LinkError, errors.Error, OSError) as error:
            raise RoutersError(f"NATS does not answer ({type(error).__name__})") from error

    async def follow(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """See :class:`Routers`."""

        async def arrived(message: Msg) -> None:
            heard(message.data)

        try:
            nc = await self._connected()
            if subject not in self._followed:
                self._followed.add(subject)
                await nc.subscribe(subject, cb=arrived)
        except (link.LinkError, errors.Error, OSError) as error:
            self._followed.discard(subject)
            raise RoutersError(f"NATS does not answer ({type(error).__name__})") from error

    async def _connected(self) -> Client:
        async with self._lock:
            if self._nc is None or self._nc.is_closed:
                self._nc = await link.connect(self._settings, timeout_s=PATIENCE_S)
                self._followed.clear()
            if not self._nc.is_connected:
                raise RoutersError("NATS does not answer: the connection is being opened again")
            return self._nc


async def _gather(subscription: Any, enough: Enough | None) -> list[dict[str, Any]]:
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
            if enough is not None and enough(found):
                break
        wait = QUIET_S
    return sorted(answers, key=lambda answer: str(answer["instance"]))
