"""The shared connection and the health port: what an outage does, and what closing leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
from pathlib import Path
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.errors import FlushTimeoutError, OutboundBufferLimitError
from prometheus_client import CollectorRegistry, Counter

from beamline_cli.local.nats import LocalNats
from beamline_sdk.health import HealthServer, HealthServerError
from beamline_sdk.link import LinkError, LinkSettings, close, connect


async def test_an_answer_that_comes_after_a_flush_has_given_up_costs_nobody_the_connection(
    own_nats: LocalNats,
) -> None:
    nc = await connect(LinkSettings(own_nats.url, "test"))
    try:
        assert own_nats.pid is not None
        os.kill(own_nats.pid, signal.SIGSTOP)
        try:
            with pytest.raises(FlushTimeoutError):
                await nc.flush(0.05)  # type: ignore[arg-type]  # nats-py takes any number of seconds
        finally:
            os.kill(own_nats.pid, signal.SIGCONT)
        await nc.flush(10)
        await nc.flush(10)
        assert (nc.is_connected, nc.stats["reconnects"], nc.last_error) == (True, 0, None)
    finally:
        await close(nc, grace_s=1.0)


async def test_while_the_server_is_gone_nothing_is_buffered_and_the_connection_returns(
    own_nats: LocalNats, tools: Any
) -> None:
    heard: list[str] = []

    async def on_disconnect() -> None:
        heard.append("disconnect")

    async def on_reconnect() -> None:
        heard.append("reconnect")

    async def on_error(error: Exception) -> None:
        heard.append("error")

    nc = await connect(
        LinkSettings(own_nats.url, "test"),
        on_disconnect=on_disconnect,
        on_reconnect=on_reconnect,
        on_error=on_error,
    )
    received: list[bytes] = []

    async def receive(message: Any) -> None:
        received.append(message.data)

    await nc.subscribe("a.b", cb=receive)
    own_nats.stop()
    await tools.eventually(lambda: "disconnect" in heard, "the loss was noticed")
    with pytest.raises(OutboundBufferLimitError):
        await nc.publish("a.b", b"late")
    own_nats.start()
    await tools.eventually(lambda: "reconnect" in heard, "the connection came back")
    await nc.publish("a.b", b"in time")
    await tools.eventually(lambda: received == [b"in time"], "only what was sent while connected arrived")
    assert "error" in heard
    await close(nc)
    assert heard.count("disconnect") == 1
    assert nc.is_closed


async def test_a_flush_sends_what_waits_before_it_asks_the_server(
    nats_server: LocalNats, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nc = await connect(LinkSettings(nats_server.url, "test"))
    sent: list[bytes] = []
    write, write_lines = nc._transport.write, nc._transport.writelines
    monkeypatch.setattr(nc._transport, "write", lambda data: (sent.append(data), write(data)))
    monkeypatch.setattr(nc._transport, "writelines", lambda lines: (sent.extend(lines), write_lines(lines)))

    async def ignore(message: Any) -> None: ...

    await nc.subscribe(subject, cb=ignore)
    await nc.flush()
    assert [line.split(b" ")[0].strip() for line in sent] == [b"SUB", b"PING"]
    await close(nc)


async def test_closing_waits_for_work_that_a_subscription_still_hands_over(
    nats_server: LocalNats, subject: str, client: Any
) -> None:
    nc = await connect(LinkSettings(nats_server.url, "test"))
    tasks: set[asyncio.Task[None]] = set()

    async def work(message: Any) -> None:
        await asyncio.sleep(0.05)
        await message.respond(b"done")

    async def accept(message: Any) -> None:
        task = asyncio.create_task(work(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    subscription = await nc.subscribe(subject, cb=accept)
    await nc.flush()
    asked = [asyncio.create_task(client.request(subject, b"", timeout=10)) for _ in range(50)]
    await asyncio.sleep(0)
    await client.flush()
    await close(nc, subscriptions=[subscription], tasks=tasks)
    assert [reply.data for reply in await asyncio.gather(*asked)] == [b"done"] * 50
    assert not tasks


async def test_closing_while_the_server_is_gone_ends_and_raises_nothing(
    own_nats: LocalNats, tools: Any
) -> None:
    nc = await connect(LinkSettings(own_nats.url, "test"))

    async def ignore(message: Any) -> None: ...

    subscription = await nc.subscribe("a.b", cb=ignore)
    own_nats.stop()
    await tools.eventually(lambda: nc.is_reconnecting, "the loss was noticed")
    async with asyncio.timeout(15):
        await close(nc, subscriptions=[subscription])
    assert nc.is_closed
    await close(nc)


async def test_a_cancellation_inside_nats_py_is_not_taken_for_our_own_and_our_own_is_not_lost() -> None:
    class Closing:
        """A client whose reconnect task is cancelled by its own ``close()``."""

        is_connected = is_draining = is_closed = False

        async def close(self) -> None:
            await asyncio.sleep(0)
            raise asyncio.CancelledError

    await close(cast("Client", Closing()))
    cancelled = asyncio.create_task(close(cast("Client", Closing())))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_reconnects_that_fail_leave_no_socket_behind(own_nats: LocalNats, tools: Any) -> None:
    opened, gone = 0, 0

    async def no_nats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened, gone
        opened += 1
        writer.write(b"HELLO\r\n")
        while await reader.read(1024):
            pass
        gone += 1
        writer.close()

    nc = await connect(LinkSettings(own_nats.url, "test"))
    own_nats.stop()
    impostor = await asyncio.start_server(no_nats, "127.0.0.1", own_nats.port)
    await tools.eventually(lambda: opened >= 6, "several reconnects met what is no NATS server")
    await tools.eventually(lambda: gone >= opened - 1, "every socket but the last is closed")
    await close(nc)
    await tools.eventually(lambda: gone == opened, "and the last one with the connection")
    impostor.close()
    await impostor.wait_closed()


async def test_the_first_connection_is_waited_for_until_cancelled(own_nats: LocalNats) -> None:
    own_nats.stop()
    waiting = asyncio.create_task(connect(LinkSettings(own_nats.url, "test")))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    own_nats.start()
    nc = await asyncio.wait_for(waiting, 15)
    await close(nc)
    own_nats.stop()
    waiting = asyncio.create_task(connect(LinkSettings(own_nats.url, "test")))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_with_a_time_limit_the_failure_is_one_sentence_without_the_password() -> None:
    with pytest.raises(LinkError, match=r"^no NATS server answers at nats://127\.0\.0\.1:1: ") as raised:
        await connect(LinkSettings("nats://user:hush@127.0.0.1:1", "test"), timeout_s=0.2)
    assert "hush" not in str(raised.value)


async def test_a_refusal_in_words_is_not_hidden_by_the_reset_that_follows() -> None:
    """A server that refuses credentials hangs up at once, and the reset may overtake its words: here the
    first attempt hears the words, each later one only the reset.
    """
    greeting = b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576,"auth_required":true}\r\n'
    attempts = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.write(greeting)
        await reader.readline()
        if attempts == 1:
            writer.write(b"-ERR 'Authorization Violation'\r\n")
            await writer.drain()
        else:
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(LinkError, match="Authorization Violation"):
            await connect(LinkSettings(f"nats://127.0.0.1:{port}", "test"), timeout_s=1.5)
    finally:
        server.close()
    assert attempts > 1


async def test_credentials_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="check NATS_CREDENTIALS_FILE"):
        await connect(LinkSettings("nats://127.0.0.1:1", "test", str(tmp_path / "none.creds")))
    with pytest.raises(LinkError, match="set NATS_URL"):
        await connect(LinkSettings("", "test"))


async def raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 15)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_health_port_answers_probes_metrics_and_nonsense(tools: Any) -> None:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(3)
    reasons: dict[str, str | None] = {"ready": "CredentialsMissing: no key", "live": None}
    server = HealthServer(
        0,
        host="127.0.0.1",
        ready=lambda: reasons["ready"],
        live=lambda: str(1 / 0) if reasons["live"] == "broken" else reasons["live"],
        registry=registry,
    )
    await server.start()
    try:
        status, body = await tools.get(server.port, "/readyz")
        assert (status, json.loads(body)) == (
            503,
            {"status": "failing", "reason": "CredentialsMissing: no key"},
        )
        reasons["ready"] = None
        assert await tools.get(server.port, "/readyz?verbose") == (200, '{"status":"ok"}')
        assert await tools.metric(server.port, "things_total") == 3
        assert (await tools.get(server.port, "/"))[0] == 404
        reasons["live"] = "broken"
        status, body = await tools.get(server.port, "/healthz")
        assert (status, json.loads(body)["reason"]) == (500, "the check itself failed: ZeroDivisionError")
        assert (await raw(server.port, b"POST /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
        assert (await raw(server.port, b"what\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert (await raw(server.port, b"HEAD /readyz HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        assert await raw(server.port, b"GET /" + b"x" * 40_000) == b""
        with pytest.raises(HealthServerError, match=f"port {server.port} for metrics and health is taken"):
            await HealthServer(server.port, host="127.0.0.1", ready=lambda: None, live=lambda: None).start()
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.sleep(0)
    finally:
        await server.stop()
        await server.stop()
    assert await idle_reader.read() == b""
    idle.close()
    await idle.wait_closed()
