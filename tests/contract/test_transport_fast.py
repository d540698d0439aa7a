"""What the hot path promises beyond the port: one timer for all requests, a bound on what waits for a socket
that takes nothing, and that nothing of it is left behind. It stands on names that are private to nats-py;
the last test says when one of them is gone.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from uuid import uuid4

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_router.core.ports import TransportFault
from beamline_router.edges import fast_nats
from beamline_router.edges.fast_nats import FastLine, FastTransport, HotPath
from beamline_sdk import link

from .transport_lines import PATIENCE, connected, echo, ignore, responding, until


@pytest.fixture
def subject() -> str:
    return f"beamline.provider.t{uuid4().hex}.v1"


async def test_requests_of_very_different_timeouts_share_one_timer_and_none_ends_early(
    nats_server: LocalNats, subject: str
) -> None:
    timers = 0
    async with responding(nats_server, subject, ignore), connected(nats_server) as nc:
        transport = FastTransport(nc)
        path = HotPath.of(nc)

        async def ask(timeout_s: float) -> float:
            began = time.monotonic()
            assert await transport.request(subject, b"x", {}, timeout_s) is TransportFault.TIMED_OUT
            return time.monotonic() - began - timeout_s

        loop = asyncio.get_running_loop()
        tasks = [asyncio.ensure_future(ask(0.05 + (number * 37 % 100) / 200)) for number in range(200)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        timers = sum(not handle.cancelled() for handle in loop._scheduled if "_sweep" in repr(handle))  # type: ignore[attr-defined]
        assert min(await asyncio.gather(*tasks)) >= 0
        assert timers == 1
        await until(lambda: path._timer is None)
        assert not path._waiting


async def test_a_short_timeout_is_kept_when_a_long_one_came_first(
    nats_server: LocalNats, subject: str
) -> None:
    async with responding(nats_server, subject, ignore), connected(nats_server) as nc:
        transport = FastTransport(nc)
        long = asyncio.ensure_future(transport.request(subject, b"x", {}, 3600.0))
        await asyncio.sleep(0)
        assert await transport.request(subject, b"x", {}, 0.02) is TransportFault.TIMED_OUT
        assert not long.done()
        long.cancel()
        await asyncio.wait([long])
        assert long.cancelled()


def _answer_after(port: int, subject: str, seconds: float, listens: threading.Event) -> None:
    """A responder that does not share our event loop: it answers one request, so many seconds later."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as wire,
        wire.makefile("rb") as lines,
    ):
        wire.sendall(b'CONNECT {"headers":true,"verbose":false}\r\nSUB %b 1\r\nPING\r\n' % subject.encode())
        while (line := lines.readline()) != b"PONG\r\n":
            assert line
        listens.set()
        while not (line := lines.readline()).startswith((b"MSG ", b"HMSG ")):
            assert line
        threading.Event().wait(seconds)
        wire.sendall(b"PUB %b 4\r\ndone\r\nPING\r\n" % line.split()[3])
        while lines.readline() not in {b"PONG\r\n", b""}:
            pass


async def test_a_reply_that_came_while_the_whole_process_stood_still_is_an_answer_and_silence_a_timeout(
    nats_server: LocalNats, subject: str
) -> None:
    listens = threading.Event()
    responder = threading.Thread(target=_answer_after, args=(nats_server.port, subject, 0.05, listens))
    responder.start()
    async with responding(nats_server, f"{subject}x", ignore), connected(nats_server) as nc:
        transport = FastTransport(nc)
        await asyncio.to_thread(listens.wait, PATIENCE)
        asked = [
            asyncio.ensure_future(transport.request(name, b"x", {}, 0.2)) for name in (subject, f"{subject}x")
        ]
        await asyncio.sleep(0.02)  # both have left
        time.sleep(0.6)  # noqa: ASYNC251 -- as a frozen container does
        assert await asyncio.gather(*asked) == [b"done", TransportFault.TIMED_OUT]
    responder.join(PATIENCE)


async def test_whatever_ends_a_request_leaves_nothing_in_the_table(
    nats_server: LocalNats, subject: str
) -> None:
    async def some(message: Msg) -> None:
        if message.data != b"silent":
            await message.respond(message.data)

    async with responding(nats_server, subject, some), connected(nats_server) as nc:
        transport = FastTransport(nc)
        path = HotPath.of(nc)
        assert await transport.request(subject, b"answered", {}, PATIENCE) == b"answered"
        assert await transport.request(subject, b"silent", {}, 0.02) is TransportFault.TIMED_OUT
        assert await transport.request(subject + ".none", b"x", {}, PATIENCE) is TransportFault.NO_RESPONDERS
        cancelled = asyncio.ensure_future(transport.request(subject, b"silent", {}, PATIENCE))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        with pytest.raises(ValueError, match="subject"):
            await transport.request("a b", b"x", {}, PATIENCE)
        assert not path._waiting


async def test_requests_that_wait_when_the_connection_is_closed_are_disconnected(
    nats_server: LocalNats, subject: str
) -> None:
    async with responding(nats_server, subject, ignore), connected(nats_server) as nc:
        waiting = asyncio.ensure_future(FastTransport(nc).request(subject, b"x", {}, 3600.0))
        await asyncio.sleep(0.01)
        await nc.close()
        assert await asyncio.wait_for(waiting, PATIENCE) is TransportFault.DISCONNECTED


async def fill(line: FastLine, big: bytes) -> None:
    """Publishes on: the system may have taken a little more meanwhile."""
    for _ in range(20):
        await line.publish(b"anything", big)
        await asyncio.sleep(0)


async def test_a_socket_that_takes_nothing_holds_no_more_than_the_bound_and_the_rest_is_refused(
    own_nats: LocalNats, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_nats, "MAX_BACKLOG", 4 * 1024 * 1024)
    big = b"x" * 512 * 1024
    async with responding(own_nats, subject, echo), connected(own_nats) as nc:
        transport, line = FastTransport(nc), FastLine(nc)
        assert await transport.request(subject, b"x", {}, PATIENCE) == b"x"
        own_nats.freeze()
        try:
            tasks = []
            for _ in range(200):
                tasks.append(asyncio.ensure_future(transport.request(subject, big, {}, 0.5)))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            outcomes = await asyncio.gather(*tasks)
            assert TransportFault.DISCONNECTED in outcomes
            assert outcomes.count(TransportFault.TIMED_OUT) < 50
            with pytest.raises(Exception, match="outbound"):
                await fill(line, big)
        finally:
            own_nats.thaw()

        async def answers() -> bool:
            return await transport.request(subject, b"again", {}, 0.5) == b"again"

        await until(answers)


async def test_what_was_not_yet_written_when_the_connection_was_lost_is_never_written(
    nats_server: LocalNats, subject: str
) -> None:
    seen: list[bytes] = []

    async def note(message: Msg) -> None:
        seen.append(message.data)
        await message.respond(message.data)

    async with responding(nats_server, subject, note), connected(nats_server) as nc:
        transport = FastTransport(nc)
        assert await transport.request(subject, b"before", {}, PATIENCE) == b"before"
        lost = asyncio.ensure_future(transport.request(subject, b"lost", {}, PATIENCE))
        asyncio.get_running_loop().call_soon(HotPath.of(nc).reset)  # in the turn in which it is sent
        unsent = HotPath.of(nc)._out
        await asyncio.sleep(0)
        assert not unsent
        assert await lost is TransportFault.DISCONNECTED
        assert await transport.request(subject, b"after", {}, PATIENCE) == b"after"
        assert seen == [b"before", b"after"]


async def test_a_new_connection_gets_a_hot_path_of_its_own(nats_server: LocalNats, subject: str) -> None:
    async with responding(nats_server, subject, echo):
        transport = FastTransport()
        assert await transport.request(subject, b"x", {}, PATIENCE) is TransportFault.DISCONNECTED
        for name in (b"first", b"second"):
            async with connected(nats_server) as nc:
                transport.attach(nc)
                assert HotPath.of(nc) is HotPath.of(nc)
                assert await transport.request(subject, name, {}, PATIENCE) == name
            assert await transport.request(subject, name, {}, PATIENCE) is TransportFault.DISCONNECTED


async def test_a_connection_that_drains_takes_no_first_request(nats_server: LocalNats, subject: str) -> None:
    nc = await link.connect(link.LinkSettings(nats_server.url, "test"))
    transport = FastTransport(nc)
    draining = asyncio.ensure_future(nc.drain())
    await until(lambda: nc.is_draining or nc.is_closed)
    assert await transport.request(subject, b"x", {}, PATIENCE) is TransportFault.DISCONNECTED
    await draining


async def test_the_private_names_of_nats_py_that_the_hot_path_stands_on_exist(nats_server: LocalNats) -> None:
    async with connected(nats_server) as nc:
        for name in (
            *("_ps", "_status", "_pending", "_pending_data_size", "_transport", "_max_payload"),
            *("_process_msg", "_process_ping", "_process_pong", "_process_info", "_process_err"),
        ):
            assert hasattr(nc, name), name
        assert hasattr(nc._transport, "_io_writer")
        assert hasattr(nc._ps, "buf")
        assert {Client.CONNECTED, Client.DRAINING_SUBS, Client.CLOSED}
        subscription = await nc.subscribe("some.subject")
        assert subscription._id == 1
