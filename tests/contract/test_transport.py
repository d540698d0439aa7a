"""What every transport of the router promises: those on NATS against a live server, and the scripted fake.

A new implementation joins all suites by one entry in ``transport_lines.TRANSPORTS``; what only a live server
can show is in ``test_transport_live`` and ``test_transport_outage``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Protocol
from uuid import uuid4

import pytest
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_router.core.ports import Transport, TransportFault
from beamline_router.fakes import FakeTransport

from .transport_lines import PATIENCE, TRANSPORTS, connected, responding

Reply = Callable[[bytes], bytes | None]
"""What a responder makes of a payload; None is silence."""
Outcome = bytes | TransportFault


class Line(Protocol):
    """A transport and whoever answers at its other end."""

    transport: Transport

    async def answer(self, subject: str, reply: Reply) -> None: ...

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...


class LiveLine:
    def __init__(self, server: LocalNats, transport: Transport, stack: AsyncExitStack) -> None:
        self.transport = transport
        self._server = server
        self._stack = stack

    async def answer(self, subject: str, reply: Reply) -> None:
        async def respond(message: Msg) -> None:
            answer = reply(message.data)
            if answer is not None:
                await message.respond(answer)

        await self._stack.enter_async_context(responding(self._server, subject, respond))

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await work


class FakeLine:
    def __init__(self) -> None:
        self.transport = self._fake = FakeTransport()

    async def answer(self, subject: str, reply: Reply) -> None:
        def scripted(sent: Any) -> bytes | TransportFault:
            answer = reply(sent.payload)
            return TransportFault.TIMED_OUT if answer is None else answer

        self._fake.script(subject, scripted)

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await self._fake.clock.drive(work)


@pytest.fixture(params=[*TRANSPORTS, "fake"])
async def line(request: pytest.FixtureRequest, nats_server: LocalNats) -> AsyncIterator[Line]:
    if request.param == "fake":
        yield FakeLine()
        return
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        yield LiveLine(nats_server, TRANSPORTS[request.param](nc), stack)


@pytest.fixture
def subject() -> str:
    return f"beamline.provider.t{uuid4().hex}.v1"


async def together(requests: list[Awaitable[Outcome]]) -> list[Outcome]:
    return list(await asyncio.gather(*requests))


async def test_the_reply_of_a_responder_comes_back(line: Line, subject: str) -> None:
    await line.answer(subject, lambda payload: payload.upper())
    assert await line.run(line.transport.request(subject, b"hello", {}, PATIENCE)) == b"HELLO"


async def test_an_empty_payload_is_a_reply_too(line: Line, subject: str) -> None:
    await line.answer(subject, lambda payload: payload)
    assert await line.run(line.transport.request(subject, b"", {}, PATIENCE)) == b""


async def test_nobody_listening_is_told_apart_from_a_timeout(line: Line, subject: str) -> None:
    outcome = await line.run(line.transport.request(subject, b"x", {}, PATIENCE))
    assert outcome is TransportFault.NO_RESPONDERS


async def test_a_responder_that_says_nothing_is_a_timeout(line: Line, subject: str) -> None:
    await line.answer(subject, lambda _: None)
    assert await line.run(line.transport.request(subject, b"x", {}, 0.05)) is TransportFault.TIMED_OUT


async def test_after_a_timeout_the_next_request_gets_its_own_reply(line: Line, subject: str) -> None:
    await line.answer(subject, lambda payload: None if payload == b"first" else payload)
    assert await line.run(line.transport.request(subject, b"first", {}, 0.05)) is TransportFault.TIMED_OUT
    assert await line.run(line.transport.request(subject, b"second", {}, PATIENCE)) == b"second"


async def test_five_hundred_requests_at_once_each_get_their_own_reply(line: Line, subject: str) -> None:
    await line.answer(subject, lambda payload: payload)
    wanted = [b"request %d" % number for number in range(500)]
    asked = [line.transport.request(subject, payload, {}, PATIENCE) for payload in wanted]
    assert await line.run(together(asked)) == wanted


async def test_a_cancelled_request_ends_as_cancelled(line: Line, subject: str) -> None:
    await line.answer(subject, lambda payload: None if payload == b"stuck" else payload)
    task = asyncio.ensure_future(line.transport.request(subject, b"stuck", {}, PATIENCE))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await line.run(line.transport.request(subject, b"next", {}, PATIENCE)) == b"next"
