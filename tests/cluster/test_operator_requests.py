"""What many objects cost a real API server: every request of the operator is counted, none is timed."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kmock
import pytest
from faultyapi import FaultyApi
from operatorbench import Bench

from beamline_contract.reports import RouterStatus
from harness.processes import free_port

MANY = 45
"""Of each kind: a crowd until the last 32 of them (``controller.CROWD``)."""


@pytest.fixture
async def counted(bench: Bench) -> AsyncIterator[FaultyApi]:
    """In front of the API server: counts what it is asked."""
    async with FaultyApi(Path(bench.settings["kubeconfig"])) as server:
        yield server


@pytest.fixture
async def router(nats_server: Any) -> AsyncIterator[None]:
    """One that serves whatever there is, and did so before the operator came."""
    from nats import connect

    nc = await connect(nats_server.url)

    async def report() -> None:
        serving = RouterStatus(instance="r1", revision=1_000_000, started_at="2030-01-01T00:00:00Z")
        while True:
            await nc.publish("beamline.router.v1.status", serving.model_dump_json().encode())
            await nc.flush()
            await asyncio.sleep(0.05)

    reports = asyncio.create_task(report())
    yield
    reports.cancel()
    await asyncio.gather(reports, return_exceptions=True)
    await nc.close()


async def test_an_object_costs_one_finalizer_one_status_and_one_event_and_a_restart_nothing(
    counted: FaultyApi, router: None, bench: Bench, tmp_path: Path
) -> None:
    await asyncio.gather(*(bench.extension(f"many-{number}", workload=None) for number in range(MANY)))
    await asyncio.gather(
        *(
            bench.apply("RoutingPolicy", f"many-{number}", {"steps": [_step(f"many-{number}")]})
            for number in range(MANY)
        )
    )
    port = free_port()
    settings = {"kubeconfig": counted.kubeconfig(tmp_path / "kubeconfig"), "metrics_port": port}
    await bench.start(**settings)
    await bench.until(lambda: _described(bench), "all of them are programmed")
    writes = _writes(counted)
    assert writes["finalizer"] == 2 * MANY
    assert 2 * MANY <= writes["status"] < 3 * MANY, "and first sight of the last, which are no crowd any more"
    assert writes["event"] <= 2 * MANY
    assert set(writes) <= {"finalizer", "status", "event"}

    await bench.stop()
    before = _writes(counted)
    await bench.start(**settings)
    await bench.until(lambda: _reconciled(port), "each was looked at once")
    await bench.stop()
    assert _writes(counted) == before
    assert not _read_alone(counted), "lists and watches, and nothing for each object"


def _step(provider: str) -> dict[str, Any]:
    return {"action": "select_provider", "providers": [{"extensionRef": {"name": provider}}]}


async def _described(bench: Bench) -> bool:
    found = 0
    for plural in ("extensions", "routingpolicies"):
        path = f"/apis/beamline.io/v1alpha1/namespaces/{bench.namespace}/{plural}"
        async for item in bench.api.items(path):
            conditions = item.get("status", {}).get("conditions", [])
            found += any((one["type"], one["status"]) == ("Programmed", "True") for one in conditions)
    await asyncio.sleep(0.2)
    return found == 2 * MANY


async def _reconciled(port: int) -> bool:
    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    text = await asyncio.to_thread(scrape)
    name = "beamline_operator_reconcile_seconds_count"
    counts = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name)]
    return sum(map(float, counts)) >= 2 * MANY


def _writes(counted: FaultyApi) -> Counter[str]:
    """What was written about objects, by what it was."""
    found: Counter[str] = Counter()
    for seen in counted.seen:
        path = str(seen.request.url.path)
        if seen.request.method == kmock.method.GET or "/leases" in path or "selfsubject" in path:
            continue
        if path.endswith("/events"):
            found["event"] += 1
        elif path.endswith("/status"):
            found["status"] += 1
        elif "/beamline.io/" in path:
            found["finalizer"] += 1
        else:
            found[path] += 1
    return found


def _read_alone(counted: FaultyApi) -> list[str]:
    """Objects that were asked for one by one."""
    paths = [str(seen.request.url.path) for seen in counted.seen if seen.request.method == kmock.method.GET]
    return [path for path in paths if "/many-" in path]
