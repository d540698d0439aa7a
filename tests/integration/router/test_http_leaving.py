"""How a server leaves: whoever is connected is answered, or told to go elsewhere."""

from __future__ import annotations

import asyncio
import socket

import orjson
import pytest

from beamline_router.edges import http_protocol, http_server
from beamline_router.edges.http_exchange import Exchange

from .http_line import GET, Client, Serve, says_its_path, serve, turns

__all__ = ["serve"]


def test_what_has_no_answer_when_the_grace_is_over_is_told_to_go_elsewhere(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "LEAVE_S", 0.05)

    async def door(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async def client(line: Client) -> None:
        line.writer.write(GET % b"")
        await turns()
        stopping = asyncio.create_task(line.server.stop(0.1))
        status, headers, body = await line.answer()
        assert (status, headers["connection"]) == (503, "close")
        assert orjson.loads(body)["error"]["code"] == "UNAVAILABLE"
        await stopping
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", line.server.port)

    serve(door, client)


def test_whoever_is_connected_when_the_server_leaves_is_answered(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In line, let in but not yet heard, and with a request that nobody has read yet on a kept connection."""
    monkeypatch.setattr(http_server, "LEAVE_S", 0.05)

    def ask(waiting: socket.socket) -> None:
        waiting.sendall(GET % b"late")

    async def answer_of(waiting: socket.socket) -> bytes:
        waiting.setblocking(False)
        loop, whole = asyncio.get_running_loop(), b""
        while part := await asyncio.wait_for(loop.sock_recv(waiting, 65_536), 10):
            whole += part
        waiting.close()
        return whole

    async def client(line: Client) -> None:
        address = "127.0.0.1", line.server.port
        line.writer.write(GET % b"a")
        await line.answer()
        silent = socket.create_connection(address)
        kept = socket.create_connection(address)
        ask(kept)
        await turns()
        assert b"200 OK" in kept.recv(65_536)
        ask(kept)
        for connection in tuple(line.server.connections):
            connection.close_when_idle()
        in_line = [socket.create_connection(address) for _ in range(50)]
        for waiting in in_line:
            ask(waiting)
        stopping = asyncio.create_task(line.server.stop(10))
        await asyncio.sleep(0.1)
        ask(silent)
        for waiting in (kept, silent, *in_line):
            answer = await answer_of(waiting)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert await line.rest() == b"", "nothing was on its way here"
        await stopping

    serve(says_its_path, client)


def test_a_connection_on_which_nothing_comes_does_not_hold_up_a_server_that_leaves(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "LEAVE_S", 0.05)
    monkeypatch.setattr(http_protocol, "_LAST_S", 0.2)

    async def client(line: Client) -> None:
        await turns()
        reader, writer = await asyncio.open_connection("127.0.0.1", line.server.port)
        writer.write(b"GET / HTT")
        await turns()
        await asyncio.wait_for(line.server.stop(10), 3)
        assert await reader.read() == await line.rest() == b""
        writer.close()

    serve(says_its_path, client)


def test_an_answer_within_the_grace_is_whole_and_the_last(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "LEAVE_S", 0.05)

    async def door(exchange: Exchange) -> None:
        await asyncio.sleep(0.2)
        exchange.answer(200, b"whole")

    async def client(line: Client) -> None:
        line.writer.write(GET % b"")
        await turns()
        stopping = asyncio.create_task(line.server.stop(10))
        status, headers, body = await line.answer()
        assert (status, headers["connection"], body) == (200, "close", b"whole")
        assert await line.rest() == b""
        await asyncio.wait_for(stopping, 5)

    serve(door, client)
