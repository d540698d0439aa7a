"""A server of HTTP exchanges without a router behind it, on either event loop, and a bare client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from beamline_router.edges.http_exchange import Exchange, Handler
from beamline_router.edges.http_refusals import Shedding
from beamline_router.edges.http_server import HttpServer
from beamline_router.edges.refusal import Refusal

GET = b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /%b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


class Client:
    """A bare connection."""

    def __init__(
        self, server: HttpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(end), 10)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        first, *lines = (await self.until(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        assert first.startswith("HTTP/1.1 "), "what stands before belongs to no answer"
        headers = dict(line.split(": ", 1) for line in lines)
        return (
            int(first.split()[1]),
            headers,
            await self.reader.readexactly(int(headers.get("content-length", "0"))),
        )

    async def rest(self) -> bytes:
        """What comes until the router closes."""
        return await asyncio.wait_for(self.reader.read(), 10)


Serve = Callable[..., None]


@pytest.fixture(params=["asyncio", "uvloop"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """Runs ``client`` against a server of ``door``, which refuses while it is ``full``."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(
        door: Handler,
        client: Callable[[Client], Awaitable[Any]],
        *,
        full: Callable[[], bool] = lambda: False,
        rest_s: float = 0.0,
    ) -> None:
        faults: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, fault: faults.append(fault))
            refusal = Refusal("full")
            shedding = Shedding(
                lambda _door: refusal if full() else None, lambda _headers: b"id", lambda: rest_s
            )
            server = HttpServer(door, shedding, "127.0.0.1", 0)
            await server.begin()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                await asyncio.wait_for(client(Client(server, reader, writer)), 20)
            finally:
                writer.close()
                await server.stop(0.1)
            assert not server.connections

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        assert not faults

    return run


async def says_its_path(exchange: Exchange) -> None:
    exchange.answer(200, exchange.path.encode())


async def turns(number: int = 10) -> None:
    """Time for what was sent to arrive, and for whatever follows from it."""
    for _ in range(number):
        await asyncio.sleep(0.005)
