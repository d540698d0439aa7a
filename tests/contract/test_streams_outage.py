"""What open streams become when the server between the two ends is killed."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from beamline_cli.local.nats import LocalNats
from beamline_router.core.ports import TransportFault
from beamline_router.core.stream_port import Chunk
from beamline_router.edges.nats_streams import NatsStreams
from beamline_sdk import link

from .test_streams import all_of, opened, speaking
from .transport_lines import PATIENCE, connected, until


@pytest.mark.parametrize("told", [True, False], ids=["told of the loss", "found at the next silence"])
async def test_a_server_killed_within_a_stream_is_a_lost_connection_and_no_fault_of_the_sender(
    own_nats: LocalNats, told: bool
) -> None:
    subject = f"beamline.provider.t{uuid4().hex}.v1"
    streams = NatsStreams()

    async def lost() -> None:
        if told:
            streams.disconnected()

    async with AsyncExitStack() as stack:
        nc = await link.connect(link.LinkSettings(own_nats.url, "test"), on_disconnect=lost)
        stack.push_async_callback(link.close, nc, grace_s=1.0)
        streams.attach(nc)
        speakers = await speaking(own_nats, subject, stack)
        stream = await opened(streams, subject)
        speaker = await speakers.get()
        await speaker.open()
        await speaker.say({"delta": "1"})
        assert isinstance(await stream.next(PATIENCE), Chunk)
        waiting = asyncio.ensure_future(stream.next(PATIENCE if told else 1.0))
        own_nats.stop(signal.SIGKILL)
        assert await asyncio.wait_for(waiting, PATIENCE) is TransportFault.DISCONNECTED
        await stream.close()
        await until(lambda: not nc.is_connected)
        assert await streams.open(subject, b"{}", {}) is TransportFault.DISCONNECTED
        own_nats.start()
        await until(lambda: nc.is_connected)
        await until(lambda: speaker.nc.is_connected)
        again = await opened(streams, subject)
        await asyncio.wait_for(speakers.get(), PATIENCE)
        await again.close()


async def test_right_after_a_reconnect_nobody_listening_is_not_yet_blamed_on_the_provider(
    own_nats: LocalNats,
) -> None:
    subject = f"beamline.provider.t{uuid4().hex}.v1"
    async with connected(own_nats) as nc:
        streams = NatsStreams(nc)
        assert await all_of(streams, subject) == [TransportFault.NO_RESPONDERS]
        own_nats.stop(signal.SIGKILL)
        await until(lambda: not nc.is_connected)
        own_nats.start()
        await until(lambda: nc.is_connected)
        assert await all_of(streams, subject) == [TransportFault.DISCONNECTED]

        async def settled() -> bool:
            return await all_of(streams, subject) == [TransportFault.NO_RESPONDERS]

        await until(settled)
