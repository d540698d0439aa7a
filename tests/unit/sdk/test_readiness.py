"""What is made of the answer of a health page."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from beamline_sdk.deployment.readiness import probe

HEAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
BODY = b'{"status":"failing","reason":"CredentialsMissing: KEY\\nis not set"}'


async def asked(*pieces: bytes) -> str | OSError | None:
    """What :func:`probe` makes of an answer that comes in pieces."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # who asked may have heard enough
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        over.set()

    over = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        said = await probe("127.0.0.1", server.sockets[0].getsockname()[1], "/readyz", 5.0)
        await over.wait()
    return said


LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
WORDS = "CredentialsMissing: KEY is not set"


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        pytest.param([HEAD + LENGTH + BODY], WORDS, id="at once"),
        pytest.param([HEAD + LENGTH, BODY], WORDS, id="the body later"),
        pytest.param([HEAD[:20], HEAD[20:] + LENGTH + BODY[:9], BODY[9:]], WORDS, id="in three pieces"),
        pytest.param([HEAD + b"\r\n", BODY], WORDS, id="without a length"),
        pytest.param([HEAD + b"\r\n", b"<html>"], "/readyz answers 503", id="no JSON"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\n"], None, id="ready"),
    ],
)
async def test_the_reason_is_read_however_it_arrives(pieces: list[bytes], says: str | None) -> None:
    assert await asked(*pieces) == says


@pytest.mark.parametrize("piece", [b"", b"garbage", b"garbage\r\n\r\n", b"x" * 100_000])
async def test_what_is_no_http_is_no_answer(piece: bytes) -> None:
    assert isinstance(await asked(piece), OSError)
