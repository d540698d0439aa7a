"""What a transport promises when the server is killed, frozen, restarted, or the connection is closed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from uuid import uuid4

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_router.core.ports import Transport, TransportFault

from .transport_lines import PATIENCE, TRANSPORTS, connected, echo, responding, until


@pytest.fixture(params=list(TRANSPORTS))
def make(request: pytest.FixtureRequest) -> Callable[[Client], Transport]:
    return TRANSPORTS[request.param]


@pytest.fixture
def subject() -> str:
    return f"beamline.provider.t{uuid4().hex}.v1"


async def test_a_server_killed_while_a_request_waits_ends_it_in_its_time_and_not_with_an_exception(
    own_nats: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    arrived = asyncio.Event()

    async def note(message: Msg) -> None:
        del message
        arrived.set()

    async with responding(own_nats, subject, note), connected(own_nats) as nc:
        task = asyncio.ensure_future(make(nc).request(subject, b"x", {}, 1.0))
        await arrived.wait()
        own_nats.stop(signal.SIGKILL)
        assert await asyncio.wait_for(task, PATIENCE) in {
            TransportFault.TIMED_OUT,
            TransportFault.DISCONNECTED,
        }


async def test_without_a_server_a_request_fails_at_once_and_is_never_executed_later(
    own_nats: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    executed: list[bytes] = []

    async def note(message: Msg) -> None:
        executed.append(message.data)
        await message.respond(message.data)

    async with responding(own_nats, subject, note), connected(own_nats) as nc:
        transport = make(nc)
        assert await transport.request(subject, b"before", {}, PATIENCE) == b"before"
        own_nats.stop(signal.SIGKILL)
        await until(lambda: not nc.is_connected)
        faults = [await transport.request(subject, b"during", {}, PATIENCE) for _ in range(20)]
        assert set(faults) == {TransportFault.DISCONNECTED}
        own_nats.start()

        async def answers() -> bool:
            return await transport.request(subject, b"after", {}, 0.5) == b"after"

        await until(answers)
        assert b"during" not in executed


async def test_right_after_a_reconnect_nobody_listening_is_not_yet_blamed_on_the_responders(
    own_nats: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    async with connected(own_nats) as nc:
        transport = make(nc)
        assert await transport.request(subject, b"x", {}, PATIENCE) is TransportFault.NO_RESPONDERS
        own_nats.stop(signal.SIGKILL)
        await until(lambda: not nc.is_connected)
        own_nats.start()
        await until(lambda: nc.is_connected)
        assert await transport.request(subject, b"x", {}, PATIENCE) is TransportFault.DISCONNECTED

        async def settled() -> bool:
            return await transport.request(subject, b"x", {}, PATIENCE) is TransportFault.NO_RESPONDERS

        await until(settled)


async def test_a_frozen_server_is_a_timeout_and_no_hang(
    own_nats: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    async with responding(own_nats, subject, echo), connected(own_nats) as nc:
        transport = make(nc)
        assert await transport.request(subject, b"x", {}, PATIENCE) == b"x"
        own_nats.freeze()
        try:
            assert (
                await asyncio.wait_for(transport.request(subject, b"x", {}, 0.3), PATIENCE)
                is TransportFault.TIMED_OUT
            )
        finally:
            own_nats.thaw()

        async def answers() -> bool:
            return await transport.request(subject, b"again", {}, 0.5) == b"again"

        await until(answers)


async def test_after_the_connection_was_closed_every_request_is_disconnected(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    async with connected(nats_server) as nc:
        transport = make(nc)
        await transport.request(subject, b"x", {}, PATIENCE)
        await nc.close()
        assert await transport.request(subject, b"x", {}, PATIENCE) is TransportFault.DISCONNECTED
