"""What every implementation of the router's streams promises: on a live nats-server, and the fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Protocol
from uuid import uuid4

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_router.core.ports import TransportFault
from beamline_router.core.stream_port import WINDOW, Chunk, ReplyStream, StreamFault, Streams
from beamline_router.edges.nats_streams import NatsStreams
from beamline_router.fake_streams import FakeStreams, Item, Wait

from .transport_lines import PATIENCE, connected, ignore, responding, until

END: dict[str, Any] = {"usage": {}, "metadata": {}}


class Line(Protocol):
    streams: Streams
    cancelled: list[str]

    async def serve(self, subject: str, items: list[Item]) -> None: ...

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...


class Speaker:
    """The sending end, spelled out message by message."""

    def __init__(self, nc: Client, request: Msg) -> None:
        self.nc = nc
        self.reply = request.reply
        self.control = nc.new_inbox()
        self.heard: list[dict[str, Any]] = []
        self.sequence = 0

    async def open(self) -> None:
        async def note(message: Msg) -> None:
            self.heard.append(orjson.loads(message.data))

        await self.nc.subscribe(self.control, cb=note)
        await self.nc.flush()
        await self.say({}, **{"Beamline-Stream-Control": self.control})

    async def say(self, body: object, **headers: str) -> None:
        numbered = {"Beamline-Stream-Sequence": str(self.sequence), **headers}
        self.sequence += 1
        await self.nc.publish(self.reply, orjson.dumps(body), headers=numbered)

    async def end(self, body: object) -> None:
        await self.say(body, **{"Beamline-Stream-End": "1"})

    def has_heard(self, said: dict[str, Any]) -> bool:
        return said in self.heard


class LiveLine:
    def __init__(self, server: LocalNats, streams: Streams, stack: AsyncExitStack) -> None:
        self.streams = streams
        self.cancelled: list[str] = []
        self._server = server
        self._stack = stack

    async def serve(self, subject: str, items: list[Item]) -> None:
        async def respond(message: Msg) -> None:
            speaker = Speaker(nc, message)
            await speaker.open()
            for item in items:
                if isinstance(item, Wait):
                    await asyncio.sleep(item.seconds)
                elif isinstance(item, str):
                    await speaker.say({"delta": item})
                else:
                    await speaker.end(item)
            await until(lambda: speaker.has_heard({"cancel": True}))
            self.cancelled.append(subject)

        nc = await self._stack.enter_async_context(responding(self._server, subject, respond))

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await work


class FakeLine:
    def __init__(self) -> None:
        self.streams = self._fake = FakeStreams()
        self.cancelled = self._fake.cancelled

    async def serve(self, subject: str, items: list[Item]) -> None:
        self._fake.script(subject, items)

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await self._fake.clock.drive(work)


@pytest.fixture(params=["nats-py", "fake"])
async def line(request: pytest.FixtureRequest, nats_server: LocalNats) -> AsyncIterator[Line]:
    if request.param == "fake":
        yield FakeLine()
        return
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        yield LiveLine(nats_server, NatsStreams(nc), stack)


@pytest.fixture
def subject() -> str:
    return f"beamline.provider.t{uuid4().hex}.v1"


async def opened(streams: Streams, subject: str, payload: bytes = b"{}") -> ReplyStream:
    stream = await streams.open(subject, payload, {"Beamline-Stream": "1"})
    assert not isinstance(stream, TransportFault)
    return stream


async def all_of(streams: Streams, subject: str, timeout_s: float = PATIENCE) -> list[Any]:
    stream = await opened(streams, subject)
    got: list[Any] = []
    while True:
        item = await stream.next(timeout_s)
        if not isinstance(item, Chunk):
            got.append(item)
            break
        got.append(orjson.loads(item.payload))
        if item.last:
            break
    await stream.close()
    return got


async def test_the_chunks_arrive_in_order_and_the_end_is_known(line: Line, subject: str) -> None:
    await line.serve(subject, ["a", "b", "c", END])
    assert await line.run(all_of(line.streams, subject)) == [
        {"delta": "a"},
        {"delta": "b"},
        {"delta": "c"},
        END,
    ]
    assert line.cancelled == []


async def test_nobody_listening_shows_at_once(line: Line, subject: str) -> None:
    assert await line.run(all_of(line.streams, subject)) == [TransportFault.NO_RESPONDERS]


async def test_silence_is_a_timeout_and_the_sender_is_told_to_stop(line: Line, subject: str) -> None:
    await line.serve(subject, ["a", Wait(3.0), "b", END])
    assert await line.run(all_of(line.streams, subject, 0.3)) == [{"delta": "a"}, TransportFault.TIMED_OUT]
    await until(lambda: line.cancelled == [subject])


async def test_streams_side_by_side_each_get_their_own_chunks(line: Line, subject: str) -> None:
    await line.serve(subject, [*(str(number) for number in range(20)), END])

    async def many() -> list[list[Any]]:
        return list(await asyncio.gather(*(all_of(line.streams, subject) for _ in range(50))))

    wanted = [*({"delta": str(number)} for number in range(20)), END]
    assert await line.run(many()) == [wanted] * 50


async def speaking(server: LocalNats, subject: str, stack: AsyncExitStack) -> asyncio.Queue[Speaker]:
    speakers: asyncio.Queue[Speaker] = asyncio.Queue()

    async def respond(message: Msg) -> None:
        await speakers.put(Speaker(nc, message))

    nc = await stack.enter_async_context(responding(server, subject, respond))
    return speakers


async def test_the_reader_says_what_it_has_read_at_the_latest_after_half_a_window(
    nats_server: LocalNats, subject: str
) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        stream = await opened(NatsStreams(nc), subject)
        speaker = await speakers.get()
        await speaker.open()
        for number in range(WINDOW):
            await speaker.say({"delta": str(number)})
        for number in range(WINDOW):
            if number == WINDOW // 2 - 1:
                await nc.flush()
                await speaker.nc.flush()
                assert speaker.heard == []
            assert isinstance(await stream.next(PATIENCE), Chunk)
        await stream.close()
        await until(lambda: speaker.has_heard({"cancel": True}))
        assert speaker.heard == [{"read": WINDOW // 2}, {"read": WINDOW}, {"cancel": True}]


async def test_a_reader_that_has_the_end_says_nothing_more(nats_server: LocalNats, subject: str) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        stream = await opened(NatsStreams(nc), subject)
        speaker = await speakers.get()
        await speaker.open()
        for number in range(WINDOW // 2 - 1):
            await speaker.say({"delta": str(number)})
        await speaker.end(END)
        await speaker.nc.flush()
        await nc.flush()
        for _ in range(WINDOW // 2):
            assert isinstance(await stream.next(PATIENCE), Chunk)
        await stream.close()
        await nc.flush()
        await speaker.nc.flush()
        assert speaker.heard == []


async def test_a_sender_that_ignores_the_window_is_cut_off(nats_server: LocalNats, subject: str) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        stream = await opened(NatsStreams(nc), subject)
        speaker = await speakers.get()
        await speaker.open()
        for number in range(10 * WINDOW):
            await speaker.say({"delta": str(number)})
        await speaker.nc.flush()
        await nc.flush()
        got = [await stream.next(PATIENCE) for _ in range(2 * WINDOW)]
        assert all(isinstance(item, Chunk) for item in got)
        assert await stream.next(PATIENCE) is StreamFault.OVERRUN
        await stream.close()
        await until(lambda: speaker.has_heard({"cancel": True}))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param({"delta": "1"}, {}, id="text"),
        pytest.param({"error": {"code": "UNAVAILABLE"}}, {"Beamline-Stream-End": "1"}, id="its end"),
        pytest.param({}, {"Beamline-Stream-End": "1"}, id="an end that says nothing"),
        pytest.param([], {}, id="a list"),
    ],
)
async def test_a_stream_that_begins_with_more_than_its_opening_is_broken(
    nats_server: LocalNats, subject: str, body: object, headers: dict[str, str]
) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        stream = await opened(NatsStreams(nc), subject)
        speaker = await speakers.get()
        await speaker.say(body, **headers)
        await speaker.say({"delta": "2"})
        assert await stream.next(PATIENCE) is StreamFault.UNOPENED
        await stream.close()


async def test_an_ordinary_reply_is_the_whole_answer_and_ends_the_call(
    nats_server: LocalNats, subject: str
) -> None:
    async def respond(message: Msg) -> None:
        await message.respond(b'{"output":"all"}')
        await message.respond(b'{"output":"all once more"}')

    heard: list[bytes] = []

    async def note(message: Msg) -> None:
        heard.append(message.data)

    async with responding(nats_server, subject, respond) as provider, connected(nats_server) as nc:
        await provider.subscribe(f"{subject}.cancel", cb=note)
        await provider.flush()
        called = {"Beamline-Stream": "1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        stream = await NatsStreams(nc).open(subject, b"{}", called)
        assert not isinstance(stream, TransportFault)
        assert await stream.next(PATIENCE) == Chunk(b'{"output":"all"}', last=True, whole=True)
        assert await stream.next(0.05) is TransportFault.TIMED_OUT
        await stream.close()
        await nc.flush()
        await provider.flush()
    assert heard == []


async def test_an_error_in_the_words_of_nats_services_is_one(nats_server: LocalNats, subject: str) -> None:
    async def respond(message: Msg) -> None:
        said = {"Nats-Service-Error-Code": "503", "Nats-Service-Error": "no model is loaded"}
        await nc.publish(message.reply, b"", headers=said)

    async with responding(nats_server, subject, respond), connected(nats_server) as nc:
        stream = await opened(NatsStreams(nc), subject)
        chunk = await stream.next(PATIENCE)
        assert isinstance(chunk, Chunk)
        assert (chunk.last, chunk.whole) == (True, True)
        assert "no model is loaded" in orjson.loads(chunk.payload)["error"]["message"]
        await stream.close()


async def test_all_streams_of_a_connection_have_one_subscription(
    nats_server: LocalNats, subject: str
) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        streams = NatsStreams(nc)
        replies = []
        for _ in range(3):
            stream = await opened(streams, subject)
            replies.append((await speakers.get()).reply.rpartition("."))
            await stream.close()
    assert len({inbox for inbox, _, _ in replies}) == 1
    assert len({token for _, _, token in replies}) == 3


async def test_a_stream_that_begins_after_it_was_forgotten_is_cancelled(
    nats_server: LocalNats, subject: str
) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        stream = await opened(NatsStreams(nc), subject)
        speaker = await speakers.get()
        await stream.close()
        await speaker.open()
        await until(lambda: speaker.has_heard({"cancel": True}))


async def test_a_lost_connection_ends_every_stream_at_once(nats_server: LocalNats, subject: str) -> None:
    async with responding(nats_server, subject, ignore), connected(nats_server) as nc:
        streams = NatsStreams(nc)
        waiting = [asyncio.ensure_future((await opened(streams, subject)).next(PATIENCE)) for _ in range(3)]
        await asyncio.sleep(0)
        streams.disconnected()
        assert await asyncio.gather(*waiting) == [TransportFault.DISCONNECTED] * 3


async def test_without_a_connection_nothing_is_sent(subject: str) -> None:
    assert await NatsStreams().open(subject, b"{}", {}) is TransportFault.DISCONNECTED


async def test_what_the_server_would_refuse_is_too_large(nats_server: LocalNats, subject: str) -> None:
    async with connected(nats_server) as nc:
        assert await NatsStreams(nc).open(subject, b"x" * 1024 * 1024, {"a": "b"}) is TransportFault.TOO_LARGE


async def test_a_subject_that_could_be_a_command_is_refused(nats_server: LocalNats) -> None:
    async with connected(nats_server) as nc:
        with pytest.raises(ValueError, match="subject"):
            await NatsStreams(nc).open("a\r\nPUB x 0\r\n\r\n", b"", {})
