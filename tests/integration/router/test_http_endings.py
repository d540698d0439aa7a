"""How connections and answers end that do not end well."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

import orjson
import pytest

from beamline_router.edges import http_protocol
from beamline_router.edges.http_exchange import Exchange, Handler

from .conftest import eventually
from .http_line import GET, POST, Client, Serve, says_its_path, serve, turns

__all__ = ["serve"]


async def crashes(exchange: Exchange) -> None:
    raise LookupError("a secret")


async def says_nothing(exchange: Exchange) -> None:
    return None


@pytest.mark.parametrize("door", [crashes, says_nothing], ids=["crashes", "answers nothing"])
def test_a_door_that_breaks_is_an_error_in_the_one_format(serve: Serve, door: Handler) -> None:
    async def client(line: Client) -> None:
        line.writer.write(GET % b"")
        status, headers, body = await line.answer()
        assert (status, headers["connection"]) == (500, "close")
        assert orjson.loads(body)["error"]["code"] == "INTERNAL"
        assert b"secret" not in body
        assert await line.rest() == b""

    serve(door, client)


def test_an_answer_that_breaks_on_its_way_does_not_look_whole(serve: Serve) -> None:
    async def door(exchange: Exchange) -> None:
        exchange.begin(200, [])
        await exchange.send(b"half")
        raise LookupError

    async def client(line: Client) -> None:
        line.writer.write(GET % b"")
        await line.until(b"\r\n\r\n")
        assert await line.rest() == b"4\r\nhalf\r\n"

    serve(door, client)


def test_a_client_that_leaves_cancels_its_request_and_the_ones_behind_it_never_begin(serve: Serve) -> None:
    begun: list[str] = []
    ended: list[str] = []

    async def door(exchange: Exchange) -> None:
        begun.append(exchange.path)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(exchange.path)

    async def client(line: Client) -> None:
        line.writer.write(GET % b"first")
        await turns()
        line.writer.write(GET % b"second")
        await turns()
        line.writer.transport.abort()
        await turns()
        assert (begun, ended) == (["/first"], ["/first"])

    serve(door, client)


def test_a_client_that_leaves_before_its_next_request_has_begun_leaves_no_task_behind(serve: Serve) -> None:
    begun: list[str] = []
    leave: list[Callable[[], None]] = []

    async def door(exchange: Exchange) -> None:
        begun.append(exchange.path)
        await turns()
        # As a loop does it that hears of the end and of the answer's last piece in the same turn.
        asyncio.get_running_loop().call_soon(leave.pop())
        exchange.answer(200, b"")

    async def client(line: Client) -> None:
        line.writer.write(GET % b"first" + GET % b"second")
        await eventually(lambda: line.server.connections, "the client is connected")
        [connection] = line.server.connections
        leave.append(lambda: connection.connection_lost(None))
        await line.answer()
        await turns()
        assert begun == ["/first"]
        kept = [one for one in gc.get_objects() if isinstance(one, asyncio.Task) and "Exchange" in repr(one)]
        assert kept == []

    serve(door, client)


def test_a_stream_waits_for_a_client_that_does_not_read(serve: Serve) -> None:
    sent = 0

    async def door(exchange: Exchange) -> None:
        nonlocal sent
        exchange.begin(200, [])
        for _ in range(400):
            await exchange.send(b"y" * 64 * 1024)
            sent += 1
        exchange.keep_alive = False
        exchange.end()

    async def client(line: Client) -> None:
        line.writer.write(GET % b"")
        await line.until(b"\r\n\r\n")
        await turns(40)
        assert sent < 400, "26 MB don't fit into any buffer"
        assert (await line.rest()).endswith(b"\r\n0\r\n\r\n"), "it goes on where the client reads"

    serve(door, client)


def test_who_sends_requests_and_reads_no_answers_is_not_served_on_and_on(serve: Serve) -> None:
    served = 0

    async def door(exchange: Exchange) -> None:
        nonlocal served
        served += 1
        exchange.answer(200, b"y" * 64 * 1024)

    async def client(line: Client) -> None:
        line.writer.write(GET % b"" * 2_000)
        await turns(40)
        stuck = served
        assert stuck < 2_000, "130 MB don't fit into any buffer"
        for _ in range(stuck + 5):
            assert (await line.answer())[0] == 200
        assert served > stuck, "it goes on where the client reads"
        line.writer.transport.abort()

    serve(door, client)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"\x00garbage\r\n\r\n", id="no head"),
        pytest.param(
            b"POST /two HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", id="a broken chunk"
        ),
    ],
)
def test_what_breaks_behind_a_request_under_way_does_not_stand_in_its_answer(
    serve: Serve, broken: bytes
) -> None:
    begun: list[str] = []
    release = asyncio.Event()

    async def door(exchange: Exchange) -> None:
        begun.append(exchange.path)
        exchange.begin(200, [])
        await exchange.send(b"one")
        await release.wait()
        exchange.end()

    async def client(line: Client) -> None:
        line.writer.write(GET % b"one" + broken)
        await line.until(b"\r\n\r\n")
        await turns()
        release.set()
        assert await line.rest() == b"3\r\none\r\n0\r\n\r\n"
        assert begun == ["/one"]

    serve(door, client)


def test_a_body_that_breaks_after_its_answer_ends_the_connection_without_another_word(serve: Serve) -> None:
    async def client(line: Client) -> None:
        line.writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        assert (await line.answer())[2] == b"/early"
        line.writer.write(b"zz\r\n")
        assert await line.rest() == b""

    serve(says_its_path, client)


def test_a_refusal_at_the_head_drops_the_body_and_keeps_the_connection(serve: Serve) -> None:
    async def client(line: Client) -> None:
        for path in (b"v1/route", b"v1/chat/completions"):
            line.writer.write(POST % (path, 5) + b"he")
            status, headers, _ = await line.answer()
            assert (status, headers["connection"]) == (429, "keep-alive")
            line.writer.write(b"llo")
        line.writer.write(GET % b"healthz")
        assert (await line.answer())[2] == b"/healthz"

    serve(says_its_path, client, full=lambda: True)


MUCH = 8_000_000
"""More than fits into buffers."""


@pytest.mark.parametrize("full", [False, True], ids=["by the door", "at the head"])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(POST % (b"v1/route", MUCH) + b"y" * MUCH, id="with a length"),
        pytest.param(
            b"POST /v1/route HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            + (b"%x\r\n%b\r\n" % (MUCH // 100, b"y" * (MUCH // 100))) * 100,
            id="in chunks",
        ),
    ],
)
def test_who_sends_a_large_body_to_its_end_still_reads_that_it_is_refused(
    serve: Serve, sent: bytes, full: bool
) -> None:
    async def door(exchange: Exchange) -> None:
        body = await exchange.read(1_000)
        exchange.answer(200 if body is not None else 413, b"no", close=True)

    async def client(line: Client) -> None:
        line.writer.write(sent)
        await line.writer.drain()
        status, headers, _ = await line.answer()
        assert (status, headers["connection"]) == (429 if full else 413, "close")
        assert await line.rest() == b""

    serve(door, client, full=lambda: full)


def test_a_client_that_takes_its_refusal_and_sends_on_and_on_is_cut_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "_LINGER_S", 0.3)

    async def client(line: Client) -> None:
        line.writer.write(POST % (b"v1/route", 1 << 40))
        assert (await line.answer())[0] == 429
        began, cut = time.monotonic(), False
        while not cut:
            assert time.monotonic() - began < 5
            line.writer.write(b"y" * 10_000)
            await asyncio.sleep(0.01)
            cut = not line.server.connections
        assert time.monotonic() - began >= 0.2, "it had a moment to read it"

    serve(says_its_path, client, full=lambda: True)


def test_the_same_refusals_are_for_what_waited_behind_another_request_and_for_a_query(serve: Serve) -> None:
    full = False

    async def door(exchange: Exchange) -> None:
        nonlocal full
        full = True
        exchange.answer(200, exchange.path.encode())

    async def client(line: Client) -> None:
        line.writer.write(GET % b"v1/route")
        for path in (b"v1/route", b"v1/route?a=b", b"v1%2Froute"):
            line.writer.write(POST % (path, 2) + b"hi")
        line.writer.write(GET % b"healthz")
        answers = [await line.answer() for _ in range(5)]
        assert [status for status, _, _ in answers] == [200, 429, 429, 429, 200]

    serve(door, client, full=lambda: full)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(GET % b"a", id="after an answer"),
        pytest.param(POST % (b"early", 5) + b"he", id="with half a body behind its answer"),
        pytest.param(POST % (b"v1/route", 5) + b"he", id="with half a body behind its refusal"),
    ],
)
def test_a_connection_that_rests_too_long_is_closed(
    serve: Serve, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "READ_S", 0.3)
    monkeypatch.setattr(http_protocol, "KEEP_ALIVE_S", 0.3)

    async def client(line: Client) -> None:
        line.writer.write(sent)
        await line.answer()
        assert await line.rest() == b""

    serve(says_its_path, client, full=lambda: True)


def test_a_body_that_trickles_is_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "READ_S", 0.2)

    async def door(exchange: Exchange) -> None:
        await exchange.read(1_000)
        exchange.answer(200, b"whole")

    async def client(line: Client) -> None:
        line.writer.write(POST % (b"", 100))
        for _ in range(100):
            line.writer.write(b"y")
            await asyncio.sleep(0.02)
            if line.reader.at_eof():
                break
        assert await line.rest() == b""

    serve(door, client)


@pytest.mark.parametrize("behind", [b"", b"\x00garbage\r\n\r\n"], ids=["alone", "with garbage behind it"])
def test_an_answer_under_way_has_all_the_time_it_needs(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, behind: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "READ_S", 0.1)
    monkeypatch.setattr(http_protocol, "KEEP_ALIVE_S", 0.1)

    async def door(exchange: Exchange) -> None:
        await asyncio.sleep(0.4)
        exchange.answer(200, b"late")

    async def client(line: Client) -> None:
        line.writer.write(GET % b"" + behind)
        assert (await line.answer())[2] == b"late"
        assert await line.rest() == b""

    serve(door, client)


@pytest.mark.parametrize("close", [False, True], ids=["that is kept", "that ends with it"])
def test_a_client_that_never_reads_its_answer_does_not_hold_a_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, close: bool
) -> None:
    monkeypatch.setattr(http_protocol, "KEEP_ALIVE_S", 0.2)

    async def door(exchange: Exchange) -> None:
        exchange.answer(200, b"y" * 30_000_000, close=close)

    async def client(line: Client) -> None:
        line.writer.write(GET % b"")
        await eventually(lambda: not line.server.connections, "the connection is cut")

    serve(door, client)


def test_a_stream_whose_client_has_stopped_reading_is_told_so(serve: Serve) -> None:
    stalled = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        while True:
            await exchange.send(b"y" * 64 * 1024, within_s=0.2)

    async def door(exchange: Exchange) -> None:
        exchange.begin(200, [])
        with pytest.raises(TimeoutError):
            await endless(exchange)
        stalled.set()
        exchange.keep_alive = False
        exchange.end()

    async def client(line: Client) -> None:
        line.writer.write(GET % b"")
        await asyncio.wait_for(stalled.wait(), 10)
        line.writer.transport.abort()

    serve(door, client)
