"""HTTP as connections see it, on both event loops, with doors that do what no pipeline would."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_router.edges import http_protocol
from beamline_router.edges.http_exchange import Exchange
from beamline_router.edges.http_refusals import Shedding
from beamline_router.edges.http_server import HttpServer
from beamline_router.edges.refusal import Refusal

from .http_line import GET, POST, Client, Serve, says_its_path, serve, turns

__all__ = ["serve"]

MUCH = 300_000
"""More than buffers of the router may hold of a body that nobody asked for: 64 KiB and one read."""


def test_answers_keep_the_order_of_requests_and_none_begins_before_the_last_has_left(serve: Serve) -> None:
    begun: list[str] = []
    release = asyncio.Event()

    async def door(exchange: Exchange) -> None:
        begun.append(exchange.path)
        if exchange.path == "/slow":
            await release.wait()
        exchange.answer(200, exchange.path.encode())

    async def client(line: Client) -> None:
        line.writer.write(b"".join(GET % name for name in (b"slow", b"second", b"third")))
        await turns()
        assert begun == ["/slow"]
        release.set()
        assert [(await line.answer())[2] for _ in range(3)] == [b"/slow", b"/second", b"/third"]

    serve(door, client)


def test_head_is_answered_with_the_length_and_without_the_body(serve: Serve) -> None:
    async def client(line: Client) -> None:
        line.writer.write((GET % b"a").replace(b"GET", b"HEAD") + GET % b"b")
        head = (await line.until(b"\r\n\r\n")).lower()
        assert b"content-length: 2\r\n" in head
        assert (await line.answer())[2] == b"/b"

    serve(says_its_path, client)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        pytest.param(b"/v1/models?a=b#c", "/v1/models", id="a query"),
        pytest.param(b"/v1/models/a%2Fb%20c", "/v1/models/a/b c", id="escapes"),
        pytest.param(b"http://router:8080/v1/route", "/v1/route", id="as to a proxy"),
        pytest.param(b"http://router:8080", "/", id="as to a proxy, without a path"),
    ],
)
def test_the_path_is_that_of(serve: Serve, url: bytes, path: str) -> None:
    async def client(line: Client) -> None:
        line.writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % url)
        assert (await line.answer())[2] == path.encode()

    serve(says_its_path, client)


def test_what_stands_around_a_headers_value_is_no_part_of_it(serve: Serve) -> None:
    async def door(exchange: Exchange) -> None:
        exchange.answer_json(200, exchange.headers())

    async def client(line: Client) -> None:
        line.writer.write(b"GET / HTTP/1.1\r\nHost:x\r\nX-Colour: \t red wine \t \r\nx-none: \t\r\n\r\n")
        read = orjson.loads((await line.answer())[2])
        assert read == {"host": "x", "x-colour": "red wine", "x-none": ""}

    serve(door, client)


async def reads(exchange: Exchange) -> None:
    body = await exchange.read(1_000_000)
    exchange.answer(413 if body is None else 200, body or b"")


def test_who_waits_for_leave_to_send_its_body_gets_it_when_somebody_reads(serve: Serve) -> None:
    expects = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-Continue\r\ncontent-length: 5\r\n\r\n"

    async def client(line: Client) -> None:
        line.writer.write(expects)
        assert await line.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.writer.write(b"hello")
        assert (await line.answer())[2] == b"hello"
        line.writer.write(expects + b"hello")  # did not wait
        status, _, body = await line.answer()
        assert (status, body) == (200, b"hello")

    serve(reads, client)


def test_who_waits_for_leave_and_is_refused_is_not_asked_for_its_body(serve: Serve) -> None:
    async def door(exchange: Exchange) -> None:
        exchange.answer(413, b"", close=True)

    async def client(line: Client) -> None:
        line.writer.write(
            b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9999\r\n\r\n"
        )
        assert (await line.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
        assert await line.rest() == b""

    serve(door, client)


def test_of_a_body_that_nobody_reads_only_little_is_taken(serve: Serve) -> None:
    seen: list[Exchange] = []
    release = asyncio.Event()

    async def door(exchange: Exchange) -> None:
        seen.append(exchange)
        await release.wait()
        body = await exchange.read(8_000_000)
        exchange.answer(200, b"%d" % len(body or b""))

    async def client(line: Client) -> None:
        line.writer.write(POST % (b"", 6_000_000) + b"y" * 6_000_000)
        await turns()
        assert 0 < seen[0].size <= 64 * 1024 + MUCH
        release.set()
        assert (await line.answer())[2] == b"6000000"

    serve(door, client)


@pytest.mark.parametrize("ahead", [1, 64 * 1024], ids=["a byte", "a chunk"])
def test_a_body_above_the_limit_is_not_read_to_its_end(serve: Serve, ahead: int) -> None:
    seen: list[Exchange] = []

    async def door(exchange: Exchange) -> None:
        seen.append(exchange)
        await reads(exchange)
        exchange.keep_alive = False

    async def client(line: Client) -> None:
        line.writer.write(POST % (b"", 6_000_000) + b"y" * (1_000_000 + ahead))
        assert (await line.answer())[0] == 413
        assert seen[0].size <= 1_000_000 + MUCH

    serve(door, client)


def test_a_client_of_http_1_0_gets_a_stream_without_chunks_up_to_the_end_of_the_connection(
    serve: Serve,
) -> None:
    async def door(exchange: Exchange) -> None:
        exchange.begin(200, [(b"content-type", b"text/event-stream")])
        for part in (b"one", b"two"):
            await exchange.send(part)
        exchange.end()

    async def client(line: Client) -> None:
        line.writer.write(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        head = await line.until(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"connection: close\r\n" in head
        assert await line.rest() == b"onetwo"

    serve(door, client)


def test_a_header_that_would_end_its_line_reaches_nobody(serve: Serve) -> None:
    values = itertools.cycle([b"a\r\nset-cookie: b=c", b"a\nset-cookie: b=c", b"a\rb"])

    async def door(exchange: Exchange) -> None:
        exchange.answer(200, b"", [(b"x-provider", next(values))])

    async def client(line: Client) -> None:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", line.server.port)
            writer.write(GET % b"")
            whole = await asyncio.wait_for(reader.read(), 10)
            assert whole.startswith(b"HTTP/1.1 500 ")
            assert b"x-provider" not in whole
            writer.close()

    serve(door, client)


def test_a_body_that_nobody_asked_for_is_dropped_behind_its_answer(serve: Serve) -> None:
    async def client(line: Client) -> None:
        line.writer.write(POST % (b"early", 500_000) + b"y" * 300_000)
        assert (await line.answer())[2] == b"/early"
        line.writer.write(b"y" * 200_000 + GET % b"next")
        assert (await line.answer())[2] == b"/next"

    serve(says_its_path, client)


def test_of_requests_that_wait_only_few_are_read(serve: Serve) -> None:
    release = asyncio.Event()

    async def door(exchange: Exchange) -> None:
        await release.wait()
        body = await exchange.read(100_000)
        exchange.answer(200, b"%d" % len(body or b""))

    async def client(line: Client) -> None:
        line.writer.write((POST % (b"", 60_000) + b"y" * 60_000) * 300)
        await turns()
        unsent = line.writer.transport.get_write_buffer_size()
        assert unsent > 6_000_000, "18 MB don't fit into the system's buffers"
        release.set()
        for _ in range(300):
            assert (await line.answer())[2] == b"60000"

    serve(door, client)


PIECES = [
    (GET % b"one", b"/one:"),
    (POST % (b"two", 11) + b"hello world", b"/two:hello world"),
    (
        b"POST /three HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n",
        b"/three:hello world",
    ),
    (
        b"POST /four HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
        b"http2-settings: AAAA\r\ncontent-length: 2\r\n\r\nhi",
        b"/four:hi",
    ),
]


@settings(max_examples=60, deadline=None)
@given(
    which=st.lists(st.sampled_from(range(len(PIECES))), min_size=1, max_size=5),
    cuts=st.sets(st.integers(1, 700), max_size=12),
)
def test_however_the_bytes_are_cut_the_same_requests_are_served(which: list[int], cuts: set[int]) -> None:
    """Fed straight into a connection: cuts on the wire would be joined again by whoever buffers."""

    class Wire(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written = b""

        def write(self, data: Any) -> None:
            self.written += data

        def is_closing(self) -> bool:
            return False

        def pause_reading(self) -> None: ...
        def resume_reading(self) -> None: ...

    async def door(exchange: Exchange) -> None:
        body = await exchange.read(1_000)
        exchange.answer(200, exchange.path.encode() + b":" + (body or b""))

    async def main() -> bytes:
        shedding = Shedding(lambda _door: None, lambda _headers: b"id", lambda: 0.0)
        server = HttpServer(door, shedding, "127.0.0.1", 0)
        line, wire = http_protocol.Connection(server, asyncio.get_running_loop()), Wire()
        line.connection_made(wire)
        whole = b"".join(PIECES[one][0] for one in which)
        ends = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
        for begin, end in itertools.pairwise(ends):
            line.data_received(whole[begin:end])
            await asyncio.sleep(0)
        for _ in range(30):
            await asyncio.sleep(0)
        line.connection_lost(None)
        await server.stop(0)
        return wire.written

    answers = asyncio.run(main()).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [PIECES[one][1] for one in which]


async def test_answers_and_refusals_of_one_turn_leave_after_all_of_them_are_made() -> None:
    done: list[str] = []

    class Wire(asyncio.Transport):
        def write(self, data: Any) -> None:
            done.append(f"wrote {bytes(data).count(b'HTTP/1.1 ')}")

        def is_closing(self) -> bool:
            return False

    async def door(exchange: Exchange) -> None:
        exchange.answer(200, b"")
        done.append("answered")

    refusal = Refusal("full")
    shedding = Shedding(lambda _door: refusal if full else None, lambda _headers: b"id", lambda: 0.0)
    server = HttpServer(door, shedding, "127.0.0.1", 0)
    lines = [http_protocol.Connection(server, asyncio.get_running_loop()) for _ in range(2)]
    for line in lines:
        line.connection_made(Wire())
    for full, times in ((False, 1), (True, 3)):
        for line in lines:
            line.data_received((POST % (b"v1/route", 0)) * times)
        assert not [one for one in done if one.startswith("wrote")]
        for _ in range(5):
            await asyncio.sleep(0)
        assert done == ([] if full else ["answered"] * 2) + [f"wrote {times}"] * 2
        done.clear()
    for line in lines:
        line.connection_lost(None)
    await server.stop(0)
