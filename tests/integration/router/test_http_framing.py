"""Where a request ends, and what is a header: as RFC 9112 has it, so that no request can be smuggled.

Behind each case stands a second request. Where it is answered, its connection has stayed whole.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from beamline_router.edges import http_protocol
from beamline_router.edges.http_exchange import Exchange

from .http_line import GET, Client, Serve, serve, turns

__all__ = ["serve"]

POST = b"POST /first HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
LENGTH = b"content-length: 5\r\n"
OFFER = b"connection: upgrade\r\nupgrade: h2c\r\n"

REFUSED: dict[str, tuple[bytes, int]] = {
    "a length and chunks": (POST + LENGTH + CHUNKED + b"\r\n" + CHUNKS, 400),
    "chunks and a length": (POST + CHUNKED + LENGTH + b"\r\n" + CHUNKS, 400),
    "a length and chunks behind an offer": (POST + OFFER + LENGTH + CHUNKED + b"\r\n" + CHUNKS, 400),
    "two lengths": (POST + LENGTH + b"content-length: 4\r\n\r\nhello", 400),
    "the same length twice": (POST + LENGTH + LENGTH + b"\r\nhello", 400),
    "a list of lengths": (POST + b"content-length: 5, 5\r\n\r\nhello", 400),
    "a negative length": (POST + b"content-length: -5\r\n\r\nhello", 400),
    "a length with a sign": (POST + b"content-length: +5\r\n\r\nhello", 400),
    "a length in hexadecimal": (POST + b"content-length: 0x5\r\n\r\nhello", 400),
    "a length beyond 64 bits": (POST + b"content-length: 18446744073709551621\r\n\r\nhello", 400),
    "an empty length": (POST + b"content-length:\r\n\r\nhello", 400),
    "a space before the colon": (POST + b"content-length : 5\r\n\r\nhello", 400),
    "a folded line": (POST + b"x-a: b\r\n c\r\n\r\n", 400),
    "a folded coding": (POST + b"transfer-encoding:\r\n chunked\r\n\r\n" + CHUNKS, 400),
    "a bare LF": (POST + b"x-a: b\nx-b: c\r\n\r\n", 400),
    "a bare CR": (POST + b"x-a: b\rx-b: c\r\n\r\n", 400),
    "NUL in a value": (POST + b"x-a: b\x00c\r\n\r\n", 400),
    "NUL in a name": (POST + b"x\x00a: b\r\n\r\n", 400),
    "a header without a name": (POST + b": b\r\n\r\n", 400),
    "chunks twice": (POST + CHUNKED + CHUNKED + b"\r\n" + CHUNKS, 400),
    "chunks within another coding": (POST + b"transfer-encoding: chunked, gzip\r\n\r\n" + CHUNKS, 400),
    "another coding": (POST + b"transfer-encoding: gzip\r\n\r\n" + CHUNKS, 501),
    "another coding within chunks": (POST + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKS, 501),
    "no coding, in so many words": (POST + b"transfer-encoding: identity, chunked\r\n\r\n" + CHUNKS, 501),
    "a coding that looks like chunked": (POST + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKS, 501),
    "a negative chunk": (POST + CHUNKED + b"\r\n-5\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk beyond 64 bits": (POST + CHUNKED + b"\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk's size with a bare LF": (POST + CHUNKED + b"\r\n5\nhello\r\n0\r\n\r\n", 400),
    "a chunk that is longer than it says": (POST + CHUNKED + b"\r\n5\r\nhelloo\r\n0\r\n\r\n", 400),
    "an extension with a line break": (POST + CHUNKED + b'\r\n5;a="\r\n"\r\nhello\r\n0\r\n\r\n', 400),
    "a length as a trailer": (POST + CHUNKED + b"\r\n0\r\ncontent-length: 9\r\n\r\n", 400),
    "no host": (b"POST /first HTTP/1.1\r\n\r\n", 400),
    "two hosts": (POST + b"host: y\r\n\r\n", 400),
    "the same host twice": (POST + b"host: x\r\n\r\n", 400),
    "a host that is none": (b"POST /first HTTP/1.1\r\nhost: x/y\r\n\r\n", 400),
    "half an address": (b"POST /first HTTP/1.1\r\nhost: [::1\r\n\r\n", 400),
    "two hosts in HTTP/1.0": (b"POST /first HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n", 400),
    "HTTP/2.0": (b"POST /first HTTP/2.0\r\nhost: x\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /first HTTP/0.9\r\n\r\n", 505),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9, 400),
}


async def echo(exchange: Exchange) -> None:
    body = await exchange.read(3_000_000)
    exchange.answer_json(200, {"headers": exchange.headers(), "body": (body or b"").decode()})


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_two_readers_could_take_for_different_requests_is_refused_and_nothing_behind_it_served(
    serve: Serve, case: tuple[bytes, int]
) -> None:
    sent, expected = case

    async def client(line: Client) -> None:
        line.writer.write(sent + GET % b"second")
        status, headers, body = await line.answer()
        assert (status, headers["connection"]) == (expected, "close")
        assert orjson.loads(body)["error"]["code"] == "INVALID_ARGUMENT"
        assert await line.rest() == b""

    serve(echo, client)


TAKEN: dict[str, bytes] = {
    "a length": POST + LENGTH + b"\r\nhello",
    "a length with zeros": POST + b"content-length: 0005\r\n\r\nhello",
    "chunks": POST + CHUNKED + b"\r\n" + CHUNKS,
    "chunks with extensions": POST + CHUNKED + b'\r\n5;a=b;c="d"\r\nhello\r\n0\r\n\r\n',
    "chunks with trailers": POST + CHUNKED + b"\r\n5\r\nhello\r\n0\r\nx-a: b\r\nx-c: d\r\n\r\n",
    "chunks of a byte": POST
    + CHUNKED
    + b"\r\n"
    + b"".join(b"1\r\n%c\r\n" % c for c in b"hello")
    + b"0\r\n\r\n",
    "an empty line before it": b"\r\n" + POST + LENGTH + b"\r\nhello",
    "an IPv6 host": b"POST / HTTP/1.1\r\nhost: [::1]:8080\r\n" + LENGTH + b"\r\nhello",
    "an empty host": b"POST / HTTP/1.1\r\nhost:\r\n" + LENGTH + b"\r\nhello",
    "a name with underscores": b"POST / HTTP/1.1\r\nhost: my_router.svc:80\r\n" + LENGTH + b"\r\nhello",
}


@pytest.mark.parametrize("sent", TAKEN.values(), ids=TAKEN.keys())
def test_what_ends_in_one_way_only_is_taken_with_what_stands_behind_it(serve: Serve, sent: bytes) -> None:
    async def client(line: Client) -> None:
        line.writer.write(sent + GET % b"second")
        bodies = [orjson.loads((await line.answer())[2])["body"] for _ in range(2)]
        assert bodies == ["hello", ""]

    serve(echo, client)


@pytest.mark.parametrize("offer", [b"", OFFER], ids=["plainly", "with an offer"])
def test_a_trailer_is_never_a_header(serve: Serve, offer: bytes) -> None:
    """Whoever stands in front has checked the headers, and a trailer comes when they have long been read."""
    trailers = b"authorization: Bearer x\r\nx-beamline-tenant: other\r\nhost: y\r\nx-a: 2\r\n"

    async def client(line: Client) -> None:
        line.writer.write(POST + offer + b"x-a: 1\r\n" + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n" + trailers)
        line.writer.write(b"\r\n" + GET % b"second")
        first, second = [orjson.loads((await line.answer())[2]) for _ in range(2)]
        assert first == {
            "headers": {"host": "x", "x-a": "1", "transfer-encoding": "chunked"},
            "body": "hello",
        }
        assert second["headers"] == {"host": "x"}

    serve(echo, client)


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"5\r\nhello\r\n0\r\n" + b"x-a: b\r\n" * 20_000, id="trailers"),
        pytest.param(b"5\r\nhello\r\n0\r\nx-a: " + b"b" * 200_000, id="one trailer"),
        pytest.param(b"5;" + b"a" * 200_000, id="an extension"),
        pytest.param(b"5;a=b\r\nhello\r\n" * 20_000, id="extensions"),
        pytest.param(b"0" * 200_000, id="a size"),
    ],
)
def test_what_stands_beside_the_data_of_chunks_has_a_bound(
    serve: Serve, endless: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "MAX_BESIDE_BYTES", 64 * 1024)

    async def client(line: Client) -> None:
        line.writer.write(POST + CHUNKED + b"\r\n")
        await turns()  # what comes with the head is not counted
        line.writer.write(endless)
        status, _, body = await line.answer()
        assert (status, "beside" in orjson.loads(body)["error"]["message"]) == (400, True)
        assert await line.rest() == b""

    serve(echo, client)


def test_the_largest_body_may_come_in_chunks_of_a_byte(serve: Serve) -> None:
    async def door(exchange: Exchange) -> None:
        body: Any = await exchange.read(256 * 1024)
        exchange.answer(200, b"%d" % len(body))

    async def client(line: Client) -> None:
        line.writer.write(POST + CHUNKED + b"\r\n" + b"1\r\ny\r\n" * 256 * 1024 + b"0\r\n\r\n")
        assert (await line.answer())[2] == b"262144"

    serve(door, client)
