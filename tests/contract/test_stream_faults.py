"""Providers that number wrong, go on behind the end or name a place that is not theirs, on live NATS."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import orjson
import pytest
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_router.core.ports import TransportFault
from beamline_router.core.stream_port import Chunk, StreamFault
from beamline_router.edges.nats_streams import NatsStreams

from .test_streams import END, all_of, opened, speaking
from .transport_lines import PATIENCE, connected, until


@pytest.fixture
def subject() -> str:
    return f"beamline.provider.t{uuid4().hex}.v1"


async def test_a_provider_that_has_not_heard_that_its_stream_is_over_hears_it_with_its_next_chunk(
    nats_server: LocalNats, subject: str
) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        streams = NatsStreams(nc)
        stream = await opened(streams, subject)
        speaker = await speakers.get()
        await speaker.open()
        await speaker.say({"delta": "1"})
        assert isinstance(await stream.next(PATIENCE), Chunk)
        streams.forget("1")  # as when the word was lost with the connection
        numbered = {"Beamline-Stream-Sequence": "2"}
        await speaker.nc.publish(speaker.reply, b'{"delta":"2"}', speaker.control, headers=numbered)
        await until(lambda: speaker.has_heard({"cancel": True}))


@pytest.mark.parametrize(
    "stated",
    ["beamline.registry.v1.changed", "_INBOX", "_INBOX.a b", ""],
    ids=["elsewhere", "all", "two", "none"],
)
@pytest.mark.parametrize("forgotten", [True, False], ids=["a forgotten stream", "an open stream"])
async def test_a_provider_that_names_no_inbox_has_nothing_published(
    nats_server: LocalNats, subject: str, stated: str, forgotten: bool
) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        streams = NatsStreams(nc)
        stream = await opened(streams, subject)
        speaker = await speakers.get()
        heard: list[Msg] = []

        async def note(message: Msg) -> None:
            heard.append(message)

        for overheard in ("beamline.registry.v1.changed", "_INBOX"):
            await speaker.nc.subscribe(overheard, cb=note)
        if forgotten:
            await stream.close()
        await speaker.say({}, **{"Beamline-Stream-Control": stated})
        await speaker.say({"delta": "1"})
        if not forgotten:
            assert isinstance(await stream.next(PATIENCE), Chunk)
            await stream.close()
        await speaker.nc.flush()
        await nc.flush()
        await speaker.nc.flush()
        assert heard == []
        assert nc.is_connected
        assert await all_of(streams, f"{subject}.nobody") == [TransportFault.NO_RESPONDERS]


FAULTY: dict[str, tuple[list[int], list[Any]]] = {
    "a number that comes twice": ([1, 1, 2], ["1", StreamFault.GAP]),
    "two that changed places": ([2, 1, 3], [StreamFault.GAP]),
    "one that is missing": ([1, 3], ["1", StreamFault.GAP]),
    "the opening once more": ([1, 0, 2], ["1", StreamFault.GAP]),
}


@pytest.mark.parametrize(("numbers", "wanted"), FAULTY.values(), ids=FAULTY.keys())
async def test_a_stream_is_broken_at(
    nats_server: LocalNats, subject: str, numbers: list[int], wanted: list[Any]
) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        stream = await opened(NatsStreams(nc), subject)
        speaker = await speakers.get()
        await speaker.open()
        for number in numbers:
            speaker.sequence = number
            await speaker.say({"delta": str(number)})
        await speaker.end(END)
        got = [await stream.next(PATIENCE) for _ in wanted]
        texts = [orjson.loads(item.payload)["delta"] if isinstance(item, Chunk) else item for item in got]
        assert texts == wanted
        assert await stream.next(0.05) is TransportFault.TIMED_OUT  # nothing behind the break is taken
        await stream.close()
        await until(lambda: speaker.has_heard({"cancel": True}))


async def test_what_comes_behind_the_end_is_dropped(nats_server: LocalNats, subject: str) -> None:
    async with connected(nats_server) as nc, AsyncExitStack() as stack:
        speakers = await speaking(nats_server, subject, stack)
        stream = await opened(NatsStreams(nc), subject)
        speaker = await speakers.get()
        await speaker.open()
        await speaker.end(END)
        await speaker.say({"delta": "late"})
        await speaker.nc.publish(speaker.reply, b'{"output":"a second answer"}')
        await speaker.nc.flush()
        await nc.flush()
        assert await stream.next(PATIENCE) == Chunk(orjson.dumps(END), last=True)
        assert await stream.next(0.05) is TransportFault.TIMED_OUT
        await stream.close()
        await speaker.nc.flush()
        assert speaker.heard == []
