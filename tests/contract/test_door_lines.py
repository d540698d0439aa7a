"""What the NATS door is promised by its line, on plain nats-py and on the hot path, against a live server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from uuid import uuid4

import pytest
from nats import errors
from nats.aio.client import Client

from beamline_cli.local.nats import LocalNats
from beamline_router.edges.fast_nats import FastTransport
from beamline_router.edges.nats_door import Line

from .transport_lines import LINES, PATIENCE, connected, until

Make = Callable[[Client], Line]
Seen = list[tuple[bytes, Mapping[str, str], bytes]]


@pytest.fixture(params=list(LINES))
def make(request: pytest.FixtureRequest) -> Make:
    return LINES[request.param]


@pytest.fixture
def subject() -> str:
    return f"beamline.door.t{uuid4().hex}"


async def test_messages_arrive_in_their_order_with_headers_in_lower_case(
    nats_server: LocalNats, subject: str, make: Make
) -> None:
    seen: Seen = []
    async with connected(nats_server) as nc, connected(nats_server) as caller:
        await make(nc).subscribe(subject, "q", lambda *message: seen.append(message))
        await nc.flush()
        for number in range(200):
            headers = {"X-Number": str(number), "Traceparent": "ü"} if number % 2 else None
            await caller.publish(subject, b"%d" % number, reply="answers.here", headers=headers)
        await until(lambda: len(seen) == 200)
    assert [payload for _, _, payload in seen] == [b"%d" % number for number in range(200)]
    assert seen[0] == (b"answers.here", {}, b"0")
    assert seen[1] == (b"answers.here", {"x-number": "1", "traceparent": "ü"}, b"1")


async def test_a_message_without_a_reply_subject_says_so(
    nats_server: LocalNats, subject: str, make: Make
) -> None:
    seen: Seen = []
    async with connected(nats_server) as nc, connected(nats_server) as caller:
        await make(nc).subscribe(subject, "q", lambda *message: seen.append(message))
        await nc.flush()
        await caller.publish(subject, b"x")
        await until(lambda: bool(seen))
    assert seen == [(b"", {}, b"x")]


async def test_what_it_publishes_answers_the_caller(nats_server: LocalNats, subject: str, make: Make) -> None:
    async with connected(nats_server) as nc, connected(nats_server) as caller:
        line = make(nc)
        tasks: list[asyncio.Task[None]] = []

        def arrived(reply: bytes, _headers: Mapping[str, str], payload: bytes) -> None:
            tasks.append(asyncio.ensure_future(line.publish(reply, payload.upper())))

        await line.subscribe(subject, "q", arrived)
        await nc.flush()
        asked = [caller.request(subject, b"hello", timeout=PATIENCE) for _ in range(100)]
        assert {reply.data for reply in await asyncio.gather(*asked)} == {b"HELLO"}
        assert line.max_payload == nc.max_payload


async def test_members_of_the_queue_group_share_the_messages(
    nats_server: LocalNats, subject: str, make: Make
) -> None:
    first: Seen = []
    second: Seen = []
    async with connected(nats_server) as one, connected(nats_server) as two, connected(nats_server) as caller:
        await make(one).subscribe(subject, "q", lambda *message: first.append(message))
        await make(two).subscribe(subject, "q", lambda *message: second.append(message))
        await one.flush()
        await two.flush()
        for _ in range(200):
            await caller.publish(subject, b"x", reply="r")
        await until(lambda: len(first) + len(second) == 200)
    assert first
    assert second


async def test_draining_hands_over_all_that_had_arrived_and_nothing_after(
    nats_server: LocalNats, subject: str, make: Make
) -> None:
    seen: Seen = []
    async with connected(nats_server) as nc, connected(nats_server) as caller:
        subscription = await make(nc).subscribe(subject, "q", lambda *message: seen.append(message))
        await nc.flush()
        for number in range(1000):
            await caller.publish(subject, b"%d" % number, reply="r")
        await caller.flush()
        await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py has no types for it
        assert len(seen) == 1000
        await caller.publish(subject, b"after", reply="r")
        await caller.flush()
        await nc.flush()
        assert len(seen) == 1000


async def test_after_a_restart_of_the_server_it_is_subscribed_again(
    own_nats: LocalNats, subject: str, make: Make
) -> None:
    seen: Seen = []
    async with connected(own_nats) as nc, connected(own_nats) as caller:
        line = make(nc)
        await line.subscribe(subject, "q", lambda *message: seen.append(message))
        await nc.flush()
        own_nats.stop(signal.SIGKILL)
        await until(lambda: not nc.is_connected and not caller.is_connected)
        with pytest.raises(errors.Error):
            await line.publish(b"lost", b"x")
        own_nats.start()
        await until(lambda: nc.is_connected and caller.is_connected)
        await nc.flush()
        await caller.publish(subject, b"x", reply="r")
        await until(lambda: len(seen) == 1)


async def test_other_subscriptions_of_the_connection_and_its_flush_go_on_as_before(
    nats_server: LocalNats, subject: str, make: Make
) -> None:
    seen: Seen = []
    hints: list[bytes] = []
    async with connected(nats_server) as nc, connected(nats_server) as caller:
        line = make(nc)

        async def hinted(message: object) -> None:
            hints.append(message.data)  # type: ignore[attr-defined]  # a nats-py message

        await nc.subscribe(f"{subject}.hint", cb=hinted)
        await line.subscribe(subject, "q", lambda *message: seen.append(message))
        await nc.flush()
        for number in range(100):
            await caller.publish(f"{subject}.hint", b"%d" % number, headers={"A": "b"})
            await caller.publish(subject, b"x", reply="r")
        await caller.flush()
        await nc.flush()
        await until(lambda: len(hints) == 100 and len(seen) == 100)
        assert hints == [b"%d" % number for number in range(100)]


async def test_a_crash_while_a_message_is_taken_does_not_end_the_reading(
    nats_server: LocalNats, subject: str
) -> None:
    seen: list[bytes] = []

    def crash_once(_reply: bytes, _headers: Mapping[str, str], payload: bytes) -> None:
        seen.append(payload)
        if len(seen) == 1:
            raise RuntimeError("broken on purpose")

    async with connected(nats_server) as nc, connected(nats_server) as caller:
        await LINES["fast"](nc).subscribe(subject, "q", crash_once)
        transport = FastTransport(nc)
        await nc.flush()
        await caller.publish(subject, b"first", reply="r")
        await until(lambda: nc.stats["reconnects"] == 1)
        await nc.flush()
        await caller.publish(subject, b"second", reply="r")
        await until(lambda: seen[-1] == b"second")
        assert transport.connected
