"""What a transport promises when the server is killed, frozen, restarted, or the connection is closed."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_router.core.ports import Transport, TransportFault
from beamline_sdk import link

from .transport_lines import PATIENCE, TRANSPORTS, connected, echo, responding, until

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """nats-py leaves the sockets of reconnect attempts that failed to the garbage collector, which complains
    about each; here, so that no other test hears of it.
    """
    yield
    gc.collect()


@pytest.fixture(params=list(TRANSPORTS))
def make(request: pytest.FixtureRequest) -> Callable[[Client], Transport]:
    return TRANSPORTS[request.param]


@pytest.fixture
def subject() -> str:
    return f"beamline.provider.t{uuid4().hex}.v1"


async def test_a_server_killed_while_a_request_waits_is_not_blamed_on_the_responder(
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
        assert await asyncio.wait_for(task, PATIENCE) is TransportFault.DISCONNECTED
        own_nats.start()
        await until(lambda: nc.stats["reconnects"] == 1)


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


async def test_a_reply_that_an_outage_swallowed_is_not_blamed_on_the_responder(
    own_nats: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    arrived = asyncio.Event()

    async def note(message: Msg) -> None:
        del message
        arrived.set()

    async with responding(own_nats, subject, note), connected(own_nats) as nc:
        task = asyncio.ensure_future(make(nc).request(subject, b"x", {}, 2.0))
        await arrived.wait()
        own_nats.stop(signal.SIGKILL)
        own_nats.start()
        await until(lambda: nc.stats["reconnects"] == 1)
        assert await asyncio.wait_for(task, PATIENCE) is TransportFault.DISCONNECTED


async def test_requests_in_flight_over_several_restarts_all_end_and_the_connection_serves_again(
    own_nats: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    ended: list[bytes | TransportFault] = []
    going = True

    async with responding(own_nats, subject, echo), connected(own_nats) as nc:
        transport = make(nc)

        async def ask(name: int) -> None:
            number = 0
            while going:
                number += 1
                wanted = b"%d/%d" % (name, number)
                outcome = await transport.request(subject, wanted, {}, 0.5)
                assert outcome == wanted or isinstance(outcome, TransportFault)
                ended.append(outcome)
                await asyncio.sleep(0.001)

        tasks = [asyncio.ensure_future(ask(name)) for name in range(20)]
        for restarts in (1, 2, 3):
            await until(lambda: len(ended) > 0 and isinstance(ended[-1], bytes))
            own_nats.stop(signal.SIGKILL)
            own_nats.start()
            await until(lambda restarts=restarts: nc.stats["reconnects"] == restarts)  # type: ignore[misc]
            ended.clear()
        await until(lambda: any(isinstance(outcome, bytes) for outcome in ended))
        going = False
        await asyncio.gather(*tasks)
        assert await transport.request(subject, b"end", {}, PATIENCE) == b"end"


async def test_a_frozen_server_is_given_up_after_its_pings_and_then_requests_fail_at_once(
    own_nats: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    async with responding(own_nats, subject, echo), connected(own_nats) as nc:
        transport = make(nc)
        assert await transport.request(subject, b"x", {}, PATIENCE) == b"x"
        own_nats.freeze()
        try:
            waiting = asyncio.ensure_future(transport.request(subject, b"x", {}, PATIENCE))
            await until(lambda: not nc.is_connected)
            assert await transport.request(subject, b"x", {}, PATIENCE) is TransportFault.DISCONNECTED
            assert await waiting is TransportFault.DISCONNECTED
        finally:
            own_nats.thaw()

        async def answers() -> bool:
            return await transport.request(subject, b"again", {}, 0.5) == b"again"

        await until(answers)


async def test_closing_waits_for_requests_under_way_and_loses_none(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    arrived: list[Msg] = []

    async def hold(message: Msg) -> None:
        arrived.append(message)
        await asyncio.sleep(0.2)
        await message.respond(message.data)

    async with responding(nats_server, subject, hold), connected(nats_server) as nc:
        transport = make(nc)
        tasks = {
            asyncio.ensure_future(transport.request(subject, b"%d" % number, {}, PATIENCE))
            for number in range(50)
        }
        await until(lambda: len(arrived) == 50)
        await link.close(nc, tasks=tasks)
        assert {task.result() for task in tasks} == {b"%d" % number for number in range(50)}


async def test_a_server_that_takes_the_credentials_no_longer_leaves_requests_disconnected(
    subject: str, make: Callable[[Client], Transport]
) -> None:
    server = LocalNats(extra=("--user", "beamline", "--pass", "first"))
    server.start()
    other = LocalNats(port=server.port, extra=("--user", "beamline", "--pass", "second"))
    url = f"nats://beamline:first@127.0.0.1:{server.port}"
    nc = await link.connect(link.LinkSettings(url, "test"))
    try:
        transport = make(nc)
        assert await transport.request(subject, b"x", {}, PATIENCE) is TransportFault.NO_RESPONDERS
        server.stop(signal.SIGKILL)
        other.start()
        await until(lambda: not nc.is_connected)
        for _ in range(20):
            assert await transport.request(subject, b"x", {}, 0.2) is TransportFault.DISCONNECTED
            await asyncio.sleep(0.02)
        other.stop()
        server.start()
        again = await link.connect(link.LinkSettings(url, "test"))
        await link.close(again, grace_s=1.0)
    finally:
        await link.close(nc, grace_s=1.0)
        other.stop()
        server.stop()


async def test_a_subject_that_the_account_may_not_publish_to_is_a_timeout_and_harms_no_other(
    tmp_path: Path, make: Callable[[Client], Transport]
) -> None:
    (tmp_path / "nats.conf").write_text(
        'authorization: {users: [{user: u, password: p, permissions: {publish: {deny: ["forbidden.>"]}}}]}\n'
    )
    server = LocalNats(extra=("-c", str(tmp_path / "nats.conf")))
    server.start()
    link_settings = link.LinkSettings(f"nats://u:p@127.0.0.1:{server.port}", "test")
    nc = await link.connect(link_settings)
    responder = await link.connect(link_settings)
    try:
        await responder.subscribe("allowed.x", cb=echo)
        await responder.flush()
        transport = make(nc)
        denied = asyncio.ensure_future(transport.request("forbidden.x", b"x", {}, 0.3))
        assert await transport.request("allowed.x", b"x", {}, PATIENCE) == b"x"
        assert await denied is TransportFault.TIMED_OUT
        assert await transport.request("allowed.x", b"y", {}, PATIENCE) == b"y"
        assert nc.stats["reconnects"] == 0
    finally:
        await link.close(nc, grace_s=1.0)
        await link.close(responder, grace_s=1.0)
        server.stop()


async def test_a_process_too_slow_to_read_is_cut_off_and_comes_back(
    tmp_path: Path, subject: str, make: Callable[[Client], Transport]
) -> None:
    (tmp_path / "nats.conf").write_text('write_deadline: "100ms"\n')
    log = tmp_path / "nats.log"
    server = LocalNats(log=log, extra=("-c", str(tmp_path / "nats.conf")))
    server.start()
    big = b"x" * 900 * 1024

    async def respond(message: Msg) -> None:
        await message.respond(big if message.data == b"big" else message.data)

    try:
        async with responding(server, subject, respond), connected(server) as nc:
            transport = make(nc)
            assert await transport.request(subject, b"small", {}, PATIENCE) == b"small"
            socket = nc._transport._io_writer.transport  # type: ignore[union-attr]  # as a busy loop would
            socket.pause_reading()
            tasks = [asyncio.ensure_future(transport.request(subject, b"big", {}, 3.0)) for _ in range(40)]
            await until(lambda: "Slow Consumer" in log.read_text())
            socket.resume_reading()
            outcomes = set(await asyncio.gather(*tasks))
            assert TransportFault.DISCONNECTED in outcomes
            assert outcomes <= {big, TransportFault.DISCONNECTED}

            async def answers() -> bool:
                return await transport.request(subject, b"again", {}, 0.5) == b"again"

            await until(answers)
    finally:
        server.stop()


async def test_after_the_connection_was_closed_every_request_is_disconnected(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    async with connected(nats_server) as nc:
        transport = make(nc)
        await transport.request(subject, b"x", {}, PATIENCE)
        await nc.close()
        assert await transport.request(subject, b"x", {}, PATIENCE) is TransportFault.DISCONNECTED
