"""Extensions as real processes, or in this one, and a client that asks them over a real nats-server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats.errors
import pytest
from nats.aio.client import Client

from beamline_cli.local.nats import LocalNats
from beamline_sdk.link import LinkSettings, close, connect
from beamline_sdk.runtime import serve
from beamline_sdk.settings import RuntimeSettings

PATIENCE_S = 60.0


async def http_get(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET on loopback."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    return int(head.split(" ")[1]), body


async def metric(port: int, sample: str) -> float:
    """The value of one sample, such as ``name_total{label="x"}``; 0 where it does not exist."""
    _, body = await http_get(port, "/metrics")
    for line in body.splitlines():
        if line.startswith(sample + " "):
            return float(line.rpartition(" ")[2])
    return 0.0


async def eventually(check: Callable[[], Any], what: str) -> Any:
    """The first true result of ``check`` (may be a coroutine function)."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            result = check()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return result
            await asyncio.sleep(0.02)
    raise AssertionError(what)


@dataclass
class Running:
    """An extension's process. ``log`` collects its standard error."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def event(self, name: str) -> dict[str, Any] | None:
        """The first log line of that event."""
        for line in self.log.read_text().splitlines():
            if f'"event":"{name}"' in line:
                found: dict[str, Any] = json.loads(line)
                return found
        return None

    async def port(self) -> int:
        """Its health port, known from its first line."""
        line = await eventually(lambda: self.event("extension.starting"), "the process started")
        return int(line["port"])

    async def is_ready(self) -> Running:
        """Waits until it serves."""
        await eventually(lambda: self.event("extension.ready"), "the extension became ready")
        return self

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    async def exit_code(self) -> int:
        """Waits for the end."""
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``python -m beamline_extensions NAME`` (or any arguments) with an environment of its own."""
    started: list[Running] = []

    def begin(*arguments: str, **environment: str) -> Running:
        log = tmp_path / f"{len(started)}.log"
        command = [
            sys.executable,
            *(arguments if len(arguments) > 1 else ("-m", "beamline_extensions", *arguments)),
        ]
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "BEAMLINE_"))
        }
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, stderr=stream, env=clean | {"METRICS_PORT": "0"} | environment
            )
        started.append(Running(process, log))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


@pytest.fixture
async def client(nats_server: LocalNats) -> AsyncIterator[Client]:
    """A connection to the shared server."""
    nc = await connect(LinkSettings(nats_server.url, "test"), timeout_s=10)
    yield nc
    await close(nc)


@pytest.fixture
def subject() -> str:
    """A subject of this test alone."""
    return f"beamline.test.{uuid4().hex[:12]}"


async def ask(nc: Client, subject: str, body: object, *, headers: dict[str, str] | None = None) -> Any:
    """The answer as JSON. ``body`` may be bytes, to be sent as they are."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = await nc.request(subject, payload, timeout=PATIENCE_S, headers=headers)
    return json.loads(reply.data)


@asynccontextmanager
async def serving(
    extension: Any, url: str, subject: str, *, wait_ready: bool = True, **settings: Any
) -> AsyncIterator[int]:
    """Serves ``extension`` in this process; gives its health port."""
    stop, ready = asyncio.Event(), asyncio.Event()
    ports: list[int] = []
    chosen = RuntimeSettings(
        nats_url=url, nats_subject=subject, metrics_port=0, metrics_host="127.0.0.1", grace_s=5, **settings
    )
    task = asyncio.create_task(
        serve(extension, chosen, stop=stop, ready=ready.set, on_listening=ports.append), name="serve"
    )
    waiting = asyncio.create_task(ready.wait() if wait_ready else asyncio.sleep(0.05))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield ports[0]
    finally:
        waiting.cancel()
        stop.set()
        with suppress(asyncio.CancelledError):
            await waiting
        await task


Serving = Callable[..., AbstractAsyncContextManager[int]]


@pytest.fixture
def tools() -> Any:
    """The functions of this file: tests are imported without a package, so they can't import them."""

    class Tools:
        get = staticmethod(http_get)
        metric = staticmethod(metric)
        eventually = staticmethod(eventually)
        ask = staticmethod(ask)
        serving = staticmethod(serving)
        RequestTimeout = nats.errors.TimeoutError

    return Tools
