"""A router that stops lets clients with kept connections go before it closes them: no request is cut off."""

from __future__ import annotations

import asyncio

import orjson

from .conftest import Site, running

BODY = orjson.dumps({"prompt": "Hi"})
REQUEST = (
    b"POST /v1/route HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bytes]:
    """Status line and headers of one more request on a kept connection."""
    writer.write(REQUEST)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    status, _, headers = head.partition(b"\r\n")
    return status, headers


async def test_a_kept_connection_is_answered_once_more_and_told_to_go(site: Site) -> None:
    async with running(site.settings()) as served:
        port = int(served.router.http_url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        status, headers = await _asked(reader, writer)
        assert status.endswith(b"200 ok")
        assert b"connection: close" not in headers
        served.stop.set()
        await asyncio.sleep(0.05)  # it has heard of its end; the connection is still there
        status, headers = await _asked(reader, writer)
        assert status.endswith(b"200 ok")
        assert b"connection: close" in headers
        assert await reader.read() == b""
        writer.close()
        await asyncio.wait_for(served.task, 20)


async def test_an_idle_connection_does_not_keep_the_router(site: Site) -> None:
    async with running(site.settings()) as served:
        port = int(served.router.http_url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await _asked(reader, writer)
        served.stop.set()
        await asyncio.wait_for(served.task, 20)
        assert await reader.read() == b""
        writer.close()
