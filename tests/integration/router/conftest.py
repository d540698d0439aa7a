"""A router with everything real around it: PostgreSQL, nats-server, responders on their own connections."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_contract.reports import Changed
from beamline_registry.migrate import migrate
from beamline_registry.port import Remove, Upsert
from beamline_registry.postgres import PostgresRegistry
from beamline_router.app import RunningRouter, run
from beamline_router.settings import RouterSettings
from beamline_sdk import link

Answer = Callable[[dict[str, Any]], dict[str, Any] | Awaitable[dict[str, Any]]]
PATIENCE = 20.0


async def eventually(condition: Callable[[], Any], what: str) -> Any:
    """The first true answer of ``condition`` (which may be a coroutine function)."""
    give_up = time.monotonic() + PATIENCE
    while True:
        met = condition()
        if isinstance(met, Awaitable):
            met = await met
        if met:
            return met
        assert time.monotonic() < give_up, f"not in time: {what}"
        await asyncio.sleep(0.02)


def extension(extension_id: str, kind: str, *, generation: int = 1, **fields: Any) -> ExtensionRecord:
    stem = {"provider": "beamline.provider", "pre": "beamline.ext.pre", "post": "beamline.ext.post"}.get(
        kind, "beamline.ext.validate"
    )
    return ExtensionRecord(
        id=extension_id,
        type=kind,
        subject=fields.pop("subject", f"{stem}.{extension_id}.v1"),
        namespace="default",
        name=extension_id.replace("_", "-"),
        uid=f"uid-{extension_id}",
        generation=generation,
        **fields,
    )


def policy(
    policy_id: str, steps: list[dict[str, Any]], *, generation: int = 1, **document: Any
) -> PolicyRecord:
    return PolicyRecord(
        id=policy_id,
        namespace="default",
        name=policy_id.replace("_", "-"),
        uid=f"uid-{policy_id}",
        generation=generation,
        policy={
            "match": {},
            "priority": 0,
            "deadline_ms": 10_000,
            "steps": steps,
            "fallback": [],
            **document,
        },
    )


PIPELINE = [
    {"action": "extension_pre", "extension_id": "lower"},
    {"action": "extension_validator", "extension_id": "guard"},
    {"action": "select_provider", "provider_id": "echo", "fallback": []},
    {"action": "extension_post", "extension_id": "mask"},
]
RECORDS = [
    extension("lower", "pre"),
    extension("guard", "validator"),
    extension("echo", "provider"),
    extension("mask", "post"),
]


def provider_reply(request: dict[str, Any], output: str | None = None) -> dict[str, Any]:
    return {
        "provider_id": request["extension_id"],
        "output": f"echo: {request['prompt']}" if output is None else output,
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        "metadata": {"model": "m", "finish_reason": "stop", "latency_ms": 1},
    }


ANSWERS: dict[str, Answer] = {
    "lower": lambda request: {"prompt": request["prompt"].lower()},
    "guard": lambda request: (
        {"verdict": "reject", "reason": "a card number"}
        if "4111" in request["prompt"]
        else {"verdict": "pass"}
    ),
    "echo": provider_reply,
    "mask": lambda request: {"output": request["output"].replace("@", "*")},
}


@dataclass
class Site:
    """What stands around a router. ``calls`` counts what each responder was asked."""

    nats_url: str
    database_url: str
    registry: PostgresRegistry
    nc: Client
    epoch: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    heard: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    async def put(self, *records: ExtensionRecord | PolicyRecord, hint: bool = True) -> int:
        results = await self.registry.write([Upsert(record, "test") for record in records], epoch=self.epoch)
        revision = max(result.revision for result in results)
        if hint:
            await self.hint(revision)
        return revision

    async def remove(self, record: ExtensionRecord | PolicyRecord) -> None:
        kind = "Extension" if isinstance(record, ExtensionRecord) else "RoutingPolicy"
        gone = Remove(kind, record.id, record.uid, record.generation + 1, "test")  # type: ignore[arg-type]
        [result] = await self.registry.write([gone], epoch=self.epoch)
        await self.hint(result.revision)

    async def hint(self, revision: int) -> None:
        await self.nc.publish(
            "beamline.registry.v1.changed", Changed(revision=revision).model_dump_json().encode()
        )
        await self.nc.flush()

    async def respond(self, nc: Client, extension_id: str, subject: str, answer: Answer) -> None:
        async def serve(message: Msg) -> None:
            self.calls[extension_id] = self.calls.get(extension_id, 0) + 1
            reply = answer(orjson.loads(message.data))
            if isinstance(reply, Awaitable):
                reply = await reply
            if nc.is_connected:
                await message.respond(orjson.dumps(reply))

        tasks: set[asyncio.Task[None]] = set()

        async def arrived(message: Msg) -> None:
            task = asyncio.ensure_future(serve(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await nc.subscribe(subject, queue=extension_id, cb=arrived)
        await nc.flush()

    async def listen(self, subject: str) -> None:
        async def note(message: Msg) -> None:
            self.heard.setdefault(subject, []).append(orjson.loads(message.data))

        await self.nc.subscribe(subject, cb=note)
        await self.nc.flush()

    def settings(self, **changes: Any) -> RouterSettings:
        given = {
            "nats_url": self.nats_url,
            "database_url": self.database_url,
            "http_port": 0,
            "access_log": False,
        }
        return RouterSettings(**{**given, **changes})


@asynccontextmanager
async def open_site(nats_url: str, database_url: str) -> AsyncIterator[Site]:
    await migrate(database_url)
    async with AsyncExitStack() as stack:
        registry = await PostgresRegistry.connect(database_url)
        stack.push_async_callback(registry.close)
        nc = await link.connect(link.LinkSettings(nats_url, "test site"))
        stack.push_async_callback(link.close, nc, grace_s=1.0)
        site = Site(nats_url, database_url, registry, nc)
        site.epoch = await registry.acquire_epoch("test")
        for record in RECORDS:
            await site.respond(nc, record.id, record.subject, ANSWERS[record.id])
        await site.put(*RECORDS, policy("default", PIPELINE), hint=False)
        yield site


@pytest.fixture
async def site(nats_server: Any, database_url: str) -> AsyncIterator[Site]:
    async with open_site(nats_server.url, database_url) as opened:
        yield opened


@dataclass
class Served:
    router: RunningRouter
    http: httpx2.AsyncClient
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def route(self, body: Mapping[str, Any], **headers: str) -> httpx2.Response:
        return await self.http.post("/v1/route", json=dict(body), headers=headers)

    async def answers(self, prompt: str = "Hi") -> bool:
        return (await self.route({"prompt": prompt})).status_code == 200

    async def readiness(self) -> dict[str, Any]:
        return (await self.http.get("/readyz")).json()


@asynccontextmanager
async def running(settings: RouterSettings) -> AsyncIterator[Served]:
    """A router in this process, ready."""
    ready: asyncio.Future[RunningRouter] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.ensure_future(run(settings, ready=ready.set_result, stop=stop))
    await asyncio.wait({task, ready}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    router = ready.result()
    try:
        async with httpx2.AsyncClient(base_url=router.http_url, timeout=PATIENCE) as http:
            yield Served(router, http, stop, task)
    finally:  # after the client, whose kept connections a router that stops asks to go first
        stop.set()
        await asyncio.wait_for(task, PATIENCE)


class RouterProcess:
    """``python -m beamline_router`` as a process of its own, its log in a file."""

    def __init__(self, site: Site, log: Path, **env: str) -> None:
        self.log = log
        self._env = {
            **os.environ,
            "NATS_URL": site.nats_url,
            "BEAMLINE_DATABASE_URL": site.database_url,
            "BEAMLINE_HTTP_PORT": "0",
            **env,
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        """Starts it; returns its URL once it listens."""
        with self.log.open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "beamline_router", env=self._env, stdout=out, stderr=out
            )
        line = await eventually(lambda: self.line("router.listening") or self.ended(), "the router listens")
        assert isinstance(line, dict), self.log.read_text()
        return str(line["url"])

    def ended(self) -> bool:
        return self.process is not None and self.process.returncode is not None

    def lines(self, event: str) -> list[dict[str, Any]]:
        text = self.log.read_bytes() if self.log.exists() else b""
        rows = [orjson.loads(line) for line in text.splitlines() if line.startswith(b"{")]
        return [row for row in rows if row.get("event") == event]

    def line(self, event: str) -> dict[str, Any] | None:
        return next(iter(self.lines(event)), None)

    async def wait(self) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), PATIENCE + 10)

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@pytest.fixture
async def start_router(site: Site, tmp_path: Path) -> AsyncIterator[Callable[..., RouterProcess]]:
    made: list[RouterProcess] = []

    def make(**env: str) -> RouterProcess:
        made.append(RouterProcess(site, tmp_path / f"router-{len(made)}.log", **env))
        return made[-1]

    yield make
    for process in made:
        await process.kill()
