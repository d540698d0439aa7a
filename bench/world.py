"""What a router needs around it in a benchmark, all of it real: PostgreSQL, nats-server, a process per step.

The measured router gets a core for itself where ``taskset`` exists, everything else shares the others.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPostgres
from beamline_contract.names import ExtensionType
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.migrate import migrate
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry
from bench.baseline import BODY
from bench.parts import Parts

START_LIMIT_S = 30.0


@dataclass(frozen=True)
class Step:
    """One extension of the benchmark's policy, answered at once with ``reply``."""

    id: str
    type: ExtensionType
    subject: str
    reply: Mapping[str, Any]


ANSWER = {
    "provider_id": "bench_provider",
    "output": "y" * 600,
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    "metadata": {"model": "bench", "finish_reason": "stop", "latency_ms": 0},
}
PRE = Step("bench_pre", "pre", "beamline.ext.pre.bench_pre.v1", {"prompt": BODY["prompt"]})
GUARD = Step("bench_guard", "validator", "beamline.ext.validate.bench_guard.v1", {"verdict": "pass"})
PROVIDER = Step("bench_provider", "provider", "beamline.provider.bench_provider.v1", ANSWER)
POST = Step("bench_post", "post", "beamline.ext.post.bench_post.v1", {"output": "y" * 600})


@dataclass(frozen=True)
class World:
    """A running set of parts. ``pids`` are NATS and the steps: what a request passes beside the router."""

    nats_url: str
    database_url: str
    pids: tuple[int, ...]


@dataclass(frozen=True)
class RouterProcess:
    """One router that serves. ``port`` is its HTTP port; the two times are seconds after the process was
    started.
    """

    child: subprocess.Popen[bytes]
    port: int
    listening_s: float
    ready_s: float

    @property
    def pid(self) -> int:
        return self.child.pid


Filler = Callable[[PostgresRegistry], Any]


@contextmanager
def world(made: Parts, steps: Sequence[Step], *, fill: Filler | None = None) -> Iterator[World]:
    """NATS, a migrated registry with one policy of these steps (then whatever ``fill`` adds), and their
    responders.
    """
    nats, postgres = LocalNats(), LocalPostgres(made.folder / "data", settings={"fsync": "off"})
    try:
        nats.start()
        postgres.start()
        _pin(made, nats.pid, postgres.pid)
        asyncio.run(_fill(postgres.url(), steps, fill))
        children = [responder(made, nats.url, step) for step in steps]
        pids = tuple(child.pid for child in children) + (() if nats.pid is None else (nats.pid,))
        yield World(nats.url, postgres.url(), pids)
    finally:
        for child in made.children:
            child.terminate()
        postgres.stop()
        nats.stop()


def responder(made: Parts, nats_url: str, step: Step) -> subprocess.Popen[bytes]:
    """A process that answers for one step; it listens when this returns."""
    body = orjson.dumps(step.reply).decode()
    child = made.module("bench.responder", nats_url, step.subject, step.id, body, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def router(made: Parts, around: World, *, name: str = "router", **env: str) -> RouterProcess:
    """A router with its default settings, started and ready."""
    log = made.folder / f"{name}.log"
    settings = {
        **os.environ,
        "NATS_URL": around.nats_url,
        "BEAMLINE_DATABASE_URL": around.database_url,
        "BEAMLINE_HTTP_PORT": "0",
        "LOG_LEVEL": "info",
        **env,
    }
    began = time.perf_counter()
    with log.open("wb") as out:
        child = made.module("beamline_router", measured=True, env=settings, stderr=out)
    port: int | None = None
    listening = 0.0
    while (passed := time.perf_counter() - began) < START_LIMIT_S:
        if port is None and (port := _port(log.read_bytes())) is not None:
            listening = passed
        if port is not None and ready(port):
            return RouterProcess(child, port, listening, time.perf_counter() - began)
        time.sleep(0.005)
    raise RuntimeError(f"the router did not become ready: {log.read_text()[-500:]}")


def ready(port: int) -> bool:
    """Whether that router says on ``/readyz`` that it serves a current table."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as reply:
            return b'"status":"ready"' in reply.read()
    except urllib.error.HTTPError as error:
        error.close()
    except urllib.error.URLError:
        pass
    return False


def extension_record(step: Step, **changes: Any) -> ExtensionRecord:
    """The registry's row for a step; its bulkhead is wide open, so that it is never what is measured."""
    return ExtensionRecord(
        **{
            "id": step.id,
            "type": step.type,
            "subject": step.subject,
            "namespace": "bench",
            "name": step.id.replace("_", "-"),
            "uid": step.id,
            "generation": 1,
            "spec": {"concurrency": 10_000},
            **changes,
        }
    )


def policy_record(steps: Sequence[Step], *, id: str = "bench", **changes: Any) -> PolicyRecord:
    """The registry's row for a policy of these steps, in this order."""
    listed = [
        {"action": "select_provider", "provider_id": step.id, "fallback": []}
        if step.type == "provider"
        else {"action": f"extension_{step.type}", "extension_id": step.id}
        for step in steps
    ]
    document = {
        "match": {}, "priority": 0, "deadline_ms": 10_000, "steps": listed, "fallback": [], **changes
    }  # fmt: skip
    return PolicyRecord(id=id, namespace="bench", name=id, uid=id, generation=1, policy=document)


async def _fill(url: str, steps: Sequence[Step], fill: Filler | None) -> None:
    await migrate(url)
    registry = await PostgresRegistry.connect(url)
    try:
        epoch = await registry.acquire_epoch("bench")
        writes = [*(Upsert(extension_record(step), "bench") for step in steps)]
        await registry.write([*writes, Upsert(policy_record(steps), "bench")], epoch=epoch)
        if fill is not None:
            await fill(registry)
    finally:
        await registry.close()


def _port(log: bytes) -> int | None:
    for line in log.splitlines():
        if b'"router.listening"' in line:
            return int(orjson.loads(line)["url"].rpartition(":")[2])
    return None


def _pin(made: Parts, *pids: int | None) -> None:
    command = made.pinned([], measured=False)
    for pid in pids:
        if command and pid is not None:
            subprocess.run([command[0], "-a", "-cp", command[2], str(pid)], check=False, capture_output=True)
