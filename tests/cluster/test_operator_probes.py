"""What the operator tells machines: ``/healthz``, ``/readyz``, ``/metrics``, and its log."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from operatorbench import Bench
from prometheus_client.parser import text_string_to_metric_families

from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPostgres
from beamline_operator.edges.loop_watch import LIMIT_S
from beamline_registry.migrate import migrate
from beamline_registry.postgres import PostgresRegistry
from beamline_sdk.deployment.kube_api import KubeApi
from harness.processes import free_port


@pytest.fixture
async def alone(
    cluster: Any, namespace: str, own_postgres: LocalPostgres, own_nats: LocalNats
) -> AsyncIterator[Bench]:
    """A bench whose PostgreSQL and NATS are this test's own."""
    await migrate(own_postgres.url())
    api = await KubeApi.connect(str(cluster.kubeconfig))
    registry = await PostgresRegistry.connect(own_postgres.url())
    settings = {
        "kubeconfig": str(cluster.operator_kubeconfig(namespace)), "namespaces": namespace,
        "database_url": own_postgres.url(), "nats_url": own_nats.url, "metrics_host": "127.0.0.1",
    }  # fmt: skip
    bench = Bench(api, registry, settings, namespace)
    try:
        yield bench
    finally:
        await bench.stop()
        await registry.close()
        await api.close()


async def ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def says(bench: Bench, port: int, path: str, status: int, part: str = "") -> None:
    async def so() -> bool:
        found = await ask(port, path)
        return found[0] == status and part in found[1]

    await bench.until(so, f"{path} of {port} says {status} {part}")


async def test_readyz_says_what_a_leader_and_a_standby_miss(
    alone: Bench, own_postgres: LocalPostgres, own_nats: LocalNats
) -> None:
    leader, standby = free_port(), free_port()
    await alone.start(identity="leader", metrics_port=leader)
    await alone.extension("a", workload=None)
    await alone.wait("Extension", "a", "Synced", "True")
    await alone.start(identity="standby", metrics_port=standby)
    for port in (leader, standby):
        await says(alone, port, "/readyz", 200)
    own_postgres.stop()  # nobody writes anything: it is noticed all the same
    for port in (leader, standby):
        await says(alone, port, "/readyz", 503, "PostgreSQL: ")
        assert (await ask(port, "/healthz"))[0] == 200, "a restart would not help"
    own_postgres.start()
    for port in (leader, standby):
        await says(alone, port, "/readyz", 200)
    own_nats.stop()
    for port in (leader, standby):
        await says(alone, port, "/readyz", 503, "NATS is not connected")
        assert (await ask(port, "/healthz"))[0] == 200
    own_nats.start()
    for port in (leader, standby):
        await says(alone, port, "/readyz", 200)


async def test_healthz_fails_where_a_watch_is_stuck(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    await bench.start(metrics_port=port)
    await bench.extension("a", workload=None)
    await bench.wait("Extension", "a", "Synced", "True")
    assert (await ask(port, "/healthz"))[0] == 200
    monkeypatch.setattr("beamline_operator.edges.kopf_edge.STUCK_S", 0.5)
    monkeypatch.setattr(
        "beamline_operator.edges.kopf_session.History.note", lambda *_: None
    )  # nothing is told
    await says(bench, port, "/healthz", 503, "has asked for nothing and heard nothing")


async def values(port: int) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    _, text = await ask(port, "/metrics")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


async def test_metrics_say_what_the_operator_did(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, standby = free_port(), free_port()
    await bench.start(metrics_port=leader, identity="leader")
    await bench.extension("a")
    await bench.extension("b", workload=None)
    for name in ("a", "b"):
        await bench.wait("Extension", name, "Synced", "True")
    await bench.until(lambda: bench.get("Service", "a"), "its Service")
    await bench.start(metrics_port=standby, identity="standby")
    await bench.delete("Service", "a")
    await bench.until(lambda: bench.get("Service", "a"), "its Service again")
    found = await values(leader)
    name = "beamline_operator"
    ok = (("kind", "Extension"), ("result", "ok"))
    assert found[f"{name}_reconcile_seconds_count"][ok] >= 2
    assert found[f"{name}_reconcile_seconds_sum"][ok] > 0
    assert found[f"{name}_api_calls_total"][("code", "200"), ("verb", "PATCH")] >= 2
    assert found[f"{name}_drift_repairs_total"][(("what", "Service"),)] >= 1
    assert found["extension_registry_size"][(("kind", "Extension"),)] == 2
    assert found[f"{name}_leader"][()] == 1
    assert 0 <= found[f"{name}_watch_age_seconds"][()] < 60
    assert found[f"{name}_watch_events_total"][()] > 0
    assert (await values(standby))[f"{name}_leader"][()] == 0
    monkeypatch.setattr("beamline_operator.core.queue.WorkQueue.__len__", lambda _: 7)
    assert (await values(leader))[f"{name}_queue_depth"][()] == 7


async def test_a_blocked_loop_is_counted_and_logged_with_its_stack(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    await bench.start(metrics_port=port)
    time.sleep(LIMIT_S + 1)  # noqa: ASYNC251 -- that is the point
    await asyncio.sleep(1)
    assert (await values(port))["beamline_operator_loop_blocks_total"][()] == 1
    told = [line for line in capsys.readouterr().out.splitlines() if "loop.blocked" in line]
    assert len(told) == 1
    assert "test_a_blocked_loop_is_counted_and_logged_with_its_stack" in told[0]


async def test_log_lines_of_a_pass_are_json_with_object_generation_and_reconcile_id(
    alone: Bench, own_postgres: LocalPostgres
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "beamline_operator", env=alone.environment(), stderr=asyncio.subprocess.PIPE
    )
    try:
        await alone.extension("a", workload=None)
        await alone.wait("Extension", "a", "Synced", "True")
        own_postgres.stop()
        await alone.extension("a", workload=None, timeoutMs=9)
        await alone.wait("Extension", "a", "Synced", "False", "RegistryUnavailable")
    finally:
        process.terminate()
        _, said = await process.communicate()
    lines = [json.loads(line) for line in said.decode().splitlines()]
    told = [line for line in lines if line["event"].startswith("reconcile.")]
    assert {"reconcile.registry_fault", "reconcile.later"} <= {line["event"] for line in told}
    place = f"Extension {alone.namespace}/a"
    assert {(line["object"], line["generation"]) for line in told} == {(place, 2)}
    assert {len(line["reconcile_id"]) for line in told} == {12}
