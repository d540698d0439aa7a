"""What a transport promises on a live nats-server: sizes, headers, late and double replies, cancellation.

Responders run on connections of their own, so what is seen here is what crosses the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_router.core.ports import Transport, TransportFault
from beamline_router.edges.fast_nats import FastTransport
from beamline_router.edges.nats_transport import NatsTransport

from .transport_lines import PATIENCE, TRANSPORTS, connected, echo, responding, until


@pytest.fixture(params=list(TRANSPORTS))
def make(request: pytest.FixtureRequest) -> Callable[[Client], Transport]:
    return TRANSPORTS[request.param]


@pytest.fixture
def subject() -> str:
    return f"beamline.provider.t{uuid4().hex}.v1"


async def test_a_payload_of_900_kib_goes_there_and_back(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    payload = b"x" * 900 * 1024
    async with responding(nats_server, subject, echo), connected(nats_server) as nc:
        assert await make(nc).request(subject, payload, {}, PATIENCE) == payload


@pytest.mark.parametrize(
    ("payload", "headers"),
    [
        pytest.param(1024 * 1024 + 1, 0, id="the payload alone"),
        pytest.param(1024 * 1024 - 100, 200, id="payload and headers together"),
    ],
)
async def test_what_the_server_would_refuse_is_too_large_and_costs_nobody_the_connection(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport], payload: int, headers: int
) -> None:
    async with responding(nats_server, subject, echo), connected(nats_server) as nc:
        transport = make(nc)
        carried = {"X-Pad": "p" * headers} if headers else {}
        assert await transport.request(subject, b"x" * payload, carried, PATIENCE) is TransportFault.TOO_LARGE
        assert await transport.request(subject, b"after", {}, PATIENCE) == b"after"
        assert nc.stats["reconnects"] == 0


async def test_a_message_of_exactly_the_limit_is_carried(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    async def count(message: Msg) -> None:
        await message.respond(b"%d" % len(message.data))

    async with responding(nats_server, subject, count), connected(nats_server) as nc:
        size = nc.max_payload - len("NATS/1.0\r\nA: b\r\n\r\n")
        assert await make(nc).request(subject, b"x" * size, {"A": "b"}, PATIENCE) == b"%d" % size
        over = await make(nc).request(subject, b"x" * (size + 1), {"A": "b"}, PATIENCE)
        assert over is TransportFault.TOO_LARGE


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_without_time_left_nothing_is_sent(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport], timeout_s: float
) -> None:
    seen: list[bytes] = []

    async def note(message: Msg) -> None:
        seen.append(message.data)
        await message.respond(b"")

    async with responding(nats_server, subject, note), connected(nats_server) as nc:
        transport = make(nc)
        assert await transport.request(subject, b"late", {}, timeout_s) is TransportFault.TIMED_OUT
        await transport.request(subject, b"in time", {}, PATIENCE)
        assert seen == [b"in time"]


@pytest.mark.parametrize("kind", [FastTransport, NatsTransport])
async def test_late_and_second_replies_are_counted(
    nats_server: LocalNats, subject: str, kind: type[FastTransport] | type[NatsTransport]
) -> None:
    late: list[str] = []
    held: list[Msg] = []

    async def respond(message: Msg) -> None:
        held.append(message)
        if message.data != b"hold":
            await message.respond(b"first")
            await message.respond(b"second")

    async with responding(nats_server, subject, respond), connected(nats_server) as nc:
        transport = kind(nc, lambda: late.append("one"))
        assert await transport.request(subject, b"hold", {}, 0.05) is TransportFault.TIMED_OUT
        await until(lambda: bool(held))
        assert late == []
        await held[0].respond(b"late")
        await until(lambda: len(late) == 1)
        assert await transport.request(subject, b"twice", {}, PATIENCE) == b"first"
        await until(lambda: len(late) == 2)


async def test_a_late_reply_is_dropped_and_never_given_to_the_next_request(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    held: list[Msg] = []

    async def hold_first(message: Msg) -> None:
        if message.data == b"first":
            held.append(message)
            return
        await held[0].respond(b"late")
        await message.respond(b"second's own")

    async with responding(nats_server, subject, hold_first), connected(nats_server) as nc:
        transport = make(nc)
        assert await transport.request(subject, b"first", {}, 0.2) is TransportFault.TIMED_OUT
        await until(lambda: bool(held))
        assert await transport.request(subject, b"second", {}, PATIENCE) == b"second's own"


async def test_of_two_replies_the_first_wins(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    async def twice(message: Msg) -> None:
        await message.respond(b"first")
        await message.respond(b"second")

    async with responding(nats_server, subject, twice), connected(nats_server) as nc:
        transport = make(nc)
        assert [await transport.request(subject, b"", {}, PATIENCE) for _ in range(5)] == [b"first"] * 5


async def test_a_cancelled_request_ends_at_once_and_its_reply_is_dropped(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    arrived = asyncio.Event()
    release = asyncio.Event()

    async def slow(message: Msg) -> None:
        if message.data == b"cancelled":
            arrived.set()
            await release.wait()
        await message.respond(message.data)

    async with responding(nats_server, subject, slow), connected(nats_server) as nc:
        transport = make(nc)
        task = asyncio.ensure_future(transport.request(subject, b"cancelled", {}, PATIENCE))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        assert await transport.request(subject, b"next", {}, PATIENCE) == b"next"


async def test_a_cancellation_that_meets_its_reply_is_not_forgotten(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    async with responding(nats_server, subject, echo), connected(nats_server) as nc:
        transport = make(nc)

        async def ask_for_ever() -> None:
            while True:
                await transport.request(subject, b"x", {}, PATIENCE)

        tasks = [asyncio.ensure_future(ask_for_ever()) for _ in range(100)]
        await transport.request(subject, b"warm", {}, PATIENCE)
        for task in tasks:
            task.cancel()
        _, forgot = await asyncio.wait(tasks, timeout=PATIENCE)
        for task in forgot:
            task.cancel()
        assert not forgot


async def test_headers_arrive_as_they_were_given(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    async def say(message: Msg) -> None:
        await message.respond(orjson.dumps(dict(message.headers or {})))

    headers = {"Beamline-Attempt": "1", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    async with responding(nats_server, subject, say), connected(nats_server) as nc:
        reply = await make(nc).request(subject, b"x", headers, PATIENCE)
        assert isinstance(reply, bytes)
        assert orjson.loads(reply) == headers


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("grüße, 世界", id="letters beyond ASCII"),
        pytest.param("a\r\nX-Injected: 1", id="a line break"),
        pytest.param("a\r\n\r\nPUB x 0\r\n", id="the end of the headers"),
    ],
)
async def test_no_header_value_can_add_a_header_or_a_command(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport], value: str
) -> None:
    async def say(message: Msg) -> None:
        await message.respond(orjson.dumps([sorted(message.headers or {}), message.data.decode()]))

    async with responding(nats_server, subject, say), connected(nats_server) as nc:
        reply = await make(nc).request(subject, b"body", {"X-Value": value}, PATIENCE)
        assert isinstance(reply, bytes)
        assert orjson.loads(reply) == [["X-Value"], "body"]


@pytest.mark.parametrize("name", ["a b", "a:b", "ü", "a\r\nb"])
async def test_a_header_name_that_is_no_token_is_refused(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport], name: str
) -> None:
    async with responding(nats_server, subject, echo), connected(nats_server) as nc:
        transport = make(nc)
        with pytest.raises(ValueError, match="header"):
            await transport.request(subject, b"x", {name: "v"}, PATIENCE)
        assert await transport.request(subject, b"next", {}, PATIENCE) == b"next"


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nPUB x 0\r\n\r\n"])
async def test_a_subject_that_could_be_a_command_is_refused(
    nats_server: LocalNats, make: Callable[[Client], Transport], bad: str
) -> None:
    async with connected(nats_server) as nc:
        with pytest.raises(ValueError, match="subject"):
            await make(nc).request(bad, b"x", {}, PATIENCE)


@pytest.mark.parametrize(
    ("stated", "code"),
    [
        ("400", "INVALID_ARGUMENT"),
        ("429", "RESOURCE_EXHAUSTED"),
        ("UNAVAILABLE", "UNAVAILABLE"),
        ("oops", "INTERNAL"),
    ],
)
async def test_an_error_that_a_foreign_service_reports_in_headers_becomes_an_error_in_our_words(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport], stated: str, code: str
) -> None:
    async with connected(nats_server) as service:

        async def fail(message: Msg) -> None:
            headers = {"Nats-Service-Error": "no such thing", "Nats-Service-Error-Code": stated}
            await service.publish(message.reply, b"", headers=headers)

        async with responding(nats_server, subject, fail), connected(nats_server) as nc:
            reply = await make(nc).request(subject, b"x", {}, PATIENCE)
    assert isinstance(reply, bytes)
    error = orjson.loads(reply)["error"]
    assert error["code"] == code
    assert "no such thing" in error["message"]


async def test_a_body_that_holds_the_error_stays_as_it_is(
    nats_server: LocalNats, subject: str, make: Callable[[Client], Transport]
) -> None:
    body = b'{"error":{"code":"UNAVAILABLE","message":"later"}}'
    async with connected(nats_server) as service:

        async def fail(message: Msg) -> None:
            await service.publish(message.reply, body, headers={"Nats-Service-Error-Code": "500"})

        async with responding(nats_server, subject, fail), connected(nats_server) as nc:
            assert await make(nc).request(subject, b"x", {}, PATIENCE) == body
