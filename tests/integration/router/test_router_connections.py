"""What a client may do to a connection before anybody has looked at a request: heads, offers, slowness."""

from __future__ import annotations

import asyncio
import gzip
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
import yaml

from beamline_router.core.api_keys import new_key
from beamline_router.edges import http_protocol

from .conftest import Served, Site, running

BODY = b'{"prompt":"Hi"}'
HEAD = b"POST /v1/route HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
JAVA = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
"""What Java's own client adds to the first request of a connection."""


class Line:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0.05)  # a read of its own

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)).decode()
        first, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self._reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, body

    async def end(self) -> bytes:
        """What comes until the router closes."""
        return await asyncio.wait_for(self._reader.read(), 10)


@asynccontextmanager
async def line(served: Served) -> AsyncIterator[Line]:
    address = urlsplit(served.router.http_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([HEAD + LENGTH + JAVA + b"\r\n" + BODY], id="at once"),
        pytest.param([HEAD + LENGTH + JAVA + b"\r\n", BODY], id="body later"),
        pytest.param([HEAD + LENGTH + JAVA, b"\r\n" + BODY[:4], BODY[4:]], id="in pieces"),
        pytest.param(
            [HEAD + JAVA + b"transfer-encoding: chunked\r\n\r\n", b"f\r\n" + BODY + b"\r\n0\r\n\r\n"],
            id="in chunks",
        ),
        pytest.param(
            [HEAD + LENGTH + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n" + BODY], id="websocket"
        ),
    ],
)
async def test_an_offer_to_speak_another_protocol_is_ignored_and_the_request_served(
    site: Site, parts: list[bytes]
) -> None:
    async with running(site.settings()) as served, line(served) as client:
        await client.send(*parts)
        status, headers, body = await client.reply()
        assert (status, orjson.loads(body)["output"]) == (200, "echo: hi")
        assert "upgrade" not in headers
        await client.send(HEAD + LENGTH + b"\r\n" + BODY)
        assert (await client.reply())[0] == 200, "the connection stays"


async def test_an_offer_behind_another_request_keeps_its_turn(site: Site) -> None:
    async with running(site.settings()) as served, line(served) as client:
        first = HEAD + b"x-request-id: first\r\n" + LENGTH + b"\r\n" + BODY
        second = HEAD + b"x-request-id: second\r\n" + LENGTH + JAVA + b"\r\n" + BODY
        await client.send(first + second)
        for name in ("first", "second"):
            status, headers, _ = await client.reply()
            assert (status, headers["x-request-id"]) == (200, name)


async def test_an_offer_with_connection_close_is_answered_and_closed(site: Site) -> None:
    offer = b"connection: close, upgrade\r\nupgrade: h2c\r\n"
    async with running(site.settings()) as served, line(served) as client:
        await client.send(HEAD + LENGTH + offer + b"\r\n" + BODY)
        status, headers, _ = await client.reply()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.end() == b""


async def test_a_header_that_comes_twice_is_a_list(site: Site) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    twice = f"baggage: a=1\r\nbaggage: b=2\r\ntraceparent: {trace}\r\ntraceparent: {trace}\r\n".encode()
    async with running(site.settings()) as served, line(served) as client:
        await client.send(HEAD + twice + LENGTH + b"\r\n" + BODY)
        _, headers, _ = await client.reply()
        assert headers["baggage"] == "a=1, b=2"
        assert "a" * 32 not in headers["traceparent"], "W3C: of two, none"


@pytest.mark.parametrize("last", ["good", "bad"])
async def test_of_two_keys_none_is_taken(site: Site, tmp_path: Path, last: str) -> None:
    key, entry = new_key("acme", None, None, secrets.token_bytes)
    keys = tmp_path / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": [entry]}))
    lines = [f"authorization: Bearer {key}\r\n", "authorization: Bearer blm_none\r\n"]
    both = "".join(lines if last == "bad" else reversed(lines)).encode()
    async with running(site.settings(api_keys=keys)) as served, line(served) as client:
        await client.send(HEAD + both + LENGTH + b"\r\n" + BODY)
        assert (await client.reply())[0] == 401
    assert site.calls == {}


async def test_a_compressed_body_is_refused_as_such_at_both_doors(site: Site) -> None:
    async with running(site.settings()) as served:
        coded = {"content-type": "application/json", "content-encoding": "gzip"}
        for path in ("/v1/route", "/v1/chat/completions"):
            refused = await served.http.post(path, content=gzip.compress(BODY), headers=coded)
            assert refused.status_code == 415
            assert "gzip" in refused.json()["error"]["message"]
        plain = await served.route({"prompt": "Hi"}, **{"content-encoding": "identity"})
        assert plain.status_code == 200


@pytest.mark.parametrize("sent", [64, 10_000], ids=["64 KiB", "10 MB without an end"])
async def test_a_head_above_64_kib_is_refused_while_it_arrives(site: Site, sent: int) -> None:
    async with running(site.settings()) as served, line(served) as client:
        filler = b"x-filler: " + b"y" * 1024 * sent
        with_end = filler + b"\r\n" + LENGTH + b"\r\n" + BODY if sent == 64 else filler
        await client.send(HEAD + with_end)
        status, headers, body = await client.reply()
        assert (status, headers["connection"]) == (431, "close")
        error = orjson.loads(body)["error"]
        assert (error["code"], error["type"]) == ("INVALID_ARGUMENT", "invalid_request_error")
        assert await client.end() == b""
        assert await served.answers()
    assert site.calls["echo"] == 1


async def test_a_head_of_60_kib_and_the_largest_body_behind_it_are_taken(site: Site) -> None:
    body = orjson.dumps({"prompt": "Hi", "context": {"filler": "y" * 250_000}})
    head = HEAD + b"x-filler: " + b"y" * 60 * 1024 + b"\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with running(site.settings()) as served, line(served) as client:
        await client.send(head[:30], head[30:] + body)
        assert (await client.reply())[0] == 200
        await client.send(head + body + head + body)
        assert [(await client.reply())[0] for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n", id="CONNECT"),
        pytest.param(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", id="a broken chunk"),
        pytest.param(b"GET /\xc3\xbc HTTP/1.1\r\nhost: x\r\n\r\n", id="a path beyond ASCII"),
        pytest.param(b"GET http://[ HTTP/1.1\r\nhost: x\r\n\r\n", id="an address that is none"),
        pytest.param(HEAD + LENGTH + b"content-length: 3\r\n\r\n" + BODY, id="two lengths"),
    ],
)
async def test_what_is_not_http_is_refused_in_the_one_error_format(site: Site, sent: bytes) -> None:
    async with running(site.settings()) as served, line(served) as client:
        await client.send(sent)
        status, headers, body = await client.reply()
        assert (status, headers["connection"]) == (400, "close")
        assert orjson.loads(body)["error"]["code"] == "INVALID_ARGUMENT"
        assert await client.end() == b""
    assert site.calls == {}


async def test_garbage_behind_a_request_does_not_stand_before_its_answer(site: Site) -> None:
    async with running(site.settings()) as served, line(served) as client:
        await client.send(HEAD + LENGTH + b"\r\n" + BODY + b"\x00garbage\r\n\r\n")
        status, _headers, body = await client.reply()
        assert (status, orjson.loads(body)["output"]) == (200, "echo: hi")
        assert await client.end() == b""


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="nothing"),
        pytest.param([HEAD], id="a head without an end"),
        pytest.param([HEAD + LENGTH + b"\r\n"], id="no body"),
        pytest.param([HEAD + LENGTH + b"\r\n" + BODY[:5]], id="half a body"),
        pytest.param([HEAD + LENGTH + b"\r\n" + BODY, HEAD], id="half a second head"),
    ],
)
async def test_a_client_that_stops_in_the_middle_is_cut_off(
    site: Site, parts: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "READ_S", 0.3)
    async with running(site.settings()) as served, line(served) as client:
        await client.send(*parts)
        if len(parts) > 1:
            assert (await client.reply())[0] == 200
        assert await client.end() == b""
        assert await served.answers()
