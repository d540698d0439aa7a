"""What the suites of the router's transport share: implementations, connections, responders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_router.core.ports import Transport
from beamline_router.edges.fast_nats import FastLine, FastTransport
from beamline_router.edges.nats_door import Line, PlainLine
from beamline_router.edges.nats_transport import NatsTransport
from beamline_sdk import link

Respond = Callable[[Msg], Awaitable[None]]
TRANSPORTS: dict[str, Callable[[Client], Transport]] = {"nats-py": NatsTransport, "fast": FastTransport}
LINES: dict[str, Callable[[Client], Line]] = {"nats-py": PlainLine, "fast": FastLine}
PATIENCE = 10.0


@asynccontextmanager
async def connected(server: LocalNats) -> AsyncIterator[Client]:
    nc = await link.connect(link.LinkSettings(server.url, "test"))
    try:
        yield nc
    finally:
        await link.close(nc, grace_s=1.0)


@asynccontextmanager
async def responding(server: LocalNats, subject: str, respond: Respond) -> AsyncIterator[Client]:
    async with connected(server) as nc:
        running: set[asyncio.Task[None]] = set()

        async def arrived(message: Msg) -> None:
            task = asyncio.ensure_future(respond(message))
            running.add(task)
            task.add_done_callback(running.discard)

        await nc.subscribe(subject, queue="q", cb=arrived)
        await nc.flush()
        yield nc
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def echo(message: Msg) -> None:
    await message.respond(message.data)


async def ignore(message: Msg) -> None:
    del message


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    give_up = time.monotonic() + PATIENCE
    while True:
        met = condition()
        if await met if isinstance(met, Awaitable) else met:
            return
        assert time.monotonic() < give_up, "the condition was not met in time"
        await asyncio.sleep(0.02)
