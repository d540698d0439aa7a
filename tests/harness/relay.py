"""A TCP port that leads to another one, for whoever wants to speak in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CLOSED_FOR_GOOD = b"-ERR 'Account Connections Exceeded'\r\n"
"""After this word of a NATS server its clients do not come back by themselves."""


@asynccontextmanager
async def relayed(port: int) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """A port that leads to ``port``, and the writers back to whoever has come through it."""
    back: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", port)
        back.append(writer)
        await asyncio.gather(pass_on(reader, here), pass_on(there, writer))

    server = await asyncio.start_server(came, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], back
    finally:
        server.close()
        for writer in back:
            writer.close()
        await asyncio.sleep(0.05)  # the other halves see their end
