"""The admin application on a socket of this machine, in a thread of its own, in front of a real PostgreSQL:
for clients that are no coroutines, such as curl.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from beamline_admin.app import application
from beamline_admin.objects.memory import MemoryObjects
from beamline_admin.server import HttpServer
from beamline_contract.acts import ActNoted, RouterAct
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.migrate import migrate
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry

TOKEN = "the-token-of-these-tests"
TYPES = {"pii_guard": "validator", "mock_provider": "provider", "mock_provider_v2": "provider"}
STEPS: list[dict[str, Any]] = [
    {"action": "extension_validator", "extensionRef": {"name": "pii-guard"}},
    {"action": "select_provider", "providers": [{"extensionRef": {"name": "mock-provider"}}]},
]
CANARY = {"versionOf": "mock-provider", "version": "v2", "canary": {"steps": [{"weight": 5}, {"weight": 50}]}}
TRAIL: dict[str, Any] = {
    "request_id": "5669197c97c8f5ef", "trace_id": "63e532c7ce0b5401dc1ea982f1100eca",
    "at": "2026-01-01T00:00:00.000Z", "instance": "router-1", "door": "http", "policy": "default",
    "tenant": "acme", "model": "gpt-4", "status": "ok", "error": None, "latency_ms": 71.3,
    "provider": "mock_provider", "reason": "ordered",
    "steps": [{
        "name": "pii_guard", "action": "extension_validator", "extension": "pii_guard", "version": None,
        "start_ms": 0.1, "ms": 1.1, "outcome": "ok", "reason": None, "why": None, "attempts": 1,
        "breaker": None, "mode": "enforce", "parallel_group": None,
    }],
}  # fmt: skip


class OneRouter:
    """A router that knows one request and answers every other."""

    async def ask(self, verb: str, request: Mapping[str, Any], enough: Any = None) -> list[dict[str, Any]]:
        unknown = {"code": "NOT_FOUND", "message": "this router does not know the request"}
        if verb == "trace" and request["request_id"] != TRAIL["request_id"]:
            return [{"instance": "router-1", "error": unknown}]
        known = {
            "recent": {"requests": [TRAIL]},
            "trace": TRAIL,
            "traffic": {"age_s": 1.0, "requests": 1, "errors": 0, "bounds": [], "buckets": [1]},
            "status": {"status": "ready", "revision": 1, "breakers": {"pii_guard": "open"}},
            "isolate": {"extension_id": "pii_guard", "breakers": {"pii_guard": "isolated"}},
            "reset": {"extension_id": "pii_guard", "breakers": {"pii_guard": "closed"}},
            "explain": {"policy": {"id": "default"}},
        }
        return [{"instance": "router-1", "result": known.get(verb, {})}]

    async def note(self, act: RouterAct) -> ActNoted:
        return ActNoted()

    async def invoke(self, request: Mapping[str, Any], headers: Any, seconds: float) -> dict[str, Any]:
        return {"provider_id": "mock_provider", "output": "Mock response", "policy": "default"}

    async def stream(
        self, request: Any, headers: Any, seconds: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        yield {"delta": "Mock "}
        yield {"delta": "response"}
        yield {"provider_id": "mock_provider", "policy": "default"}

    async def follow(self, subject: str, heard: Any) -> None:
        raise AssertionError("nothing runs in the background here")


def documents() -> list[dict[str, Any]]:
    """The objects: three extensions, one of them a canary, and a policy."""
    made: list[dict[str, Any]] = [
        {
            "kind": "Extension",
            "metadata": {"name": name.replace("_", "-")},
            "spec": {"type": kind, **(CANARY if name.endswith("v2") else {})},
        }
        for name, kind in TYPES.items()
    ]
    policy = {"kind": "RoutingPolicy", "metadata": {"name": "default"}, "spec": {"steps": STEPS}}
    return [*made, policy]


async def _fill(registry: PostgresRegistry) -> None:
    epoch = await registry.acquire_epoch("tests")
    records: list[ExtensionRecord | PolicyRecord] = [
        ExtensionRecord(
            name, kind, f"beamline.{kind}.{name}.v1", "default", name.replace("_", "-"), f"uid-{name}", 1,
            spec={"type": kind, **(CANARY if name.endswith("v2") else {})},
        )
        for name, kind in TYPES.items()
    ]  # fmt: skip
    steps = [
        {"action": "extension_validator", "extension_id": "pii_guard"},
        {"action": "select_provider", "provider_id": "mock_provider"},
    ]
    document = {"match": {}, "steps": steps}
    records.append(PolicyRecord("default", "default", "default", "uid-default", 1, document))
    await registry.write([Upsert(record, "ada") for record in records], epoch=epoch)


@contextmanager
def served(database_url: str) -> Iterator[str]:
    """Its URL."""
    ready, urls, faults = threading.Event(), [""], list[BaseException]()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def work() -> None:
        await migrate(database_url)
        registry = await PostgresRegistry.connect(database_url, application="served admin")
        try:
            await _fill(registry)
            objects = MemoryObjects(documents(), programmed=True)
            app = application(registry, registry, TOKEN, objects=objects, routers=OneRouter(), rate=10_000)
            server = HttpServer(app, "127.0.0.1", 0)
            server.start()
            urls[0] = f"http://127.0.0.1:{server.port}"
            ready.set()
            await server.until(stop)
            await server.stop()
        finally:
            await registry.close()

    def turn() -> None:
        try:
            loop.run_until_complete(work())
        except Exception as error:  # noqa: BLE001 -- told to the test by its own thread
            faults.append(error)
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=turn, name="served admin")
    thread.start()
    try:
        assert ready.wait(60)
        assert not faults, faults
        yield urls[0]
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    assert not faults, faults
