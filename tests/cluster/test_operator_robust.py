"""The operator's promises in numbers, on a real API server: who takes over and when, what an idle cluster
costs, how soon an outage is over, and what two operators without a common Lease do.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kmock
import pytest
from faultyapi import FaultyApi
from operatorbench import WORKLOAD, Bench

from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPostgres
from beamline_contract.reports import HealthDelta, RouterHealth, RouterStatus
from beamline_operator.edges.preflight import Refusal
from beamline_operator.rbac import lease_rules
from beamline_registry.migrate import migrate
from beamline_registry.port import AuditQuery
from beamline_registry.postgres import PostgresRegistry
from beamline_sdk.deployment.kube_api import KubeApi

TAKEOVER_S = 15.0
A_TERM_BEGINS_S = 1.0
OUTAGE_OVER_S = 10.0
IDLE_S = 6.0


async def a_process(bench: Bench, identity: str) -> asyncio.subprocess.Process:
    environment = bench.environment(BEAMLINE_IDENTITY=identity)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "beamline_operator", env=environment, stderr=asyncio.subprocess.DEVNULL
    )


def seconds(earlier: str, later: str) -> float:
    """Between two moments as the API server and the database write them."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_standby_takes_over_within_15_seconds(bench: Bench, how: signal.Signals) -> None:
    bench.patience_s = 90  # a process takes its time to start on a busy machine
    leader = await a_process(bench, "leader")
    try:
        await bench.extension("a", workload=None)
        await bench.wait("Extension", "a", "Synced", "True")
        await bench.start(identity="standby", lease_retry_s=1.5)
        await asyncio.sleep(2)  # it has seen the leader's Lease
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{bench.namespace}/leases/beamline-operator"
        leader.send_signal(how)
        gone = datetime.now(UTC)
        renewed = (await bench.api.request("GET", lease))["spec"]["renewTime"]
        await bench.extension("b", workload=None)
        await bench.wait("Extension", "b", "Synced", "True")
        found = (await bench.api.request("GET", lease))["spec"]
        assert found["holderIdentity"] == "standby"
        written = (await bench.registry.audit(AuditQuery(limit=1)))[0]
        assert (written.object_id, written.action) == ("b", "created"), "the first write of the new leader"
        waited = seconds(renewed, found["acquireTime"])
        took = seconds(gone.isoformat(), written.timestamp)
        print(f"Lease taken {waited:.1f} s after its renewal, first write {took:.1f} s after the end")
        assert waited < TAKEOVER_S - A_TERM_BEGINS_S
        assert took < TAKEOVER_S
        if how is signal.SIGSTOP:
            versions, audit = await bench.versions(), await bench.audit()
            leader.send_signal(signal.SIGCONT)
            await asyncio.sleep(2)
            assert await bench.versions() == versions
            assert await bench.audit() == audit
    finally:
        if leader.returncode is None:
            leader.kill()
        await leader.wait()


ELSEWHERE = "default"
"""A namespace that operators of a bench do not look into."""


async def may_lead(bench: Bench, lease: str, namespace: str = ELSEWHERE) -> str:
    """What a second release with a Lease of its own has: the chart's account may touch its own one only.
    Returns the name of the Lease.
    """
    lease = f"{bench.namespace}-{lease}"
    home = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    metadata = {"name": f"lease-{lease}"}
    role = {"metadata": metadata, "rules": lease_rules(lease)}
    await bench.api.request("POST", f"{home}/roles", body=role)
    binding = {
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": metadata["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "beamline-operator", "namespace": bench.namespace}],
    }
    await bench.api.request("POST", f"{home}/rolebindings", body=binding)
    return lease


async def test_of_two_operators_under_two_leases_one_refuses_to_go_on(bench: Bench) -> None:
    """Where neither can see the other's Lease, the registry's epoch tells."""
    one, two = await may_lead(bench, "one"), await may_lead(bench, "two")
    await bench.start(identity="first", lease_name=one, lease_namespace=ELSEWHERE)
    await bench.extension("a", workload=None)
    await bench.wait("Extension", "a", "Synced", "True")
    await bench.start(identity="second", lease_name=two, lease_namespace=ELSEWHERE)

    async def never() -> bool:
        await bench.extension("a", workload=None, timeoutMs=int(time.monotonic() * 1000) % 1000 + 1)
        return False

    with pytest.raises(Refusal, match=r"another operator.*second.*BEAMLINE_LEASE_NAME") as refused:
        await bench.until(never, "somebody gives up")
    assert "\n" not in str(refused.value)
    del bench._running[0]


@pytest.fixture
async def counted(bench: Bench) -> AsyncIterator[FaultyApi]:
    """In front of the API server: counts what it is asked."""
    async with FaultyApi(Path(bench.settings["kubeconfig"])) as server:
        yield server


async def test_an_idle_cluster_writes_nothing(
    counted: FaultyApi, bench: Bench, nats_server: Any, tmp_path: Path
) -> None:
    from nats import connect

    await bench.start(kubeconfig=counted.kubeconfig(tmp_path / "kubeconfig"), resync_s=0.5)
    await bench.extension("guard", workload=WORKLOAD)
    steps = [{"action": "select_provider", "providers": [{"extensionRef": {"name": "guard"}}]}]
    await bench.apply("RoutingPolicy", "default", {"steps": steps})
    async with await connect(nats_server.url) as nc:

        async def report(sequence: int) -> None:
            """A router that serves everything and has calls to tell of, none of them news."""
            status = RouterStatus(instance="r1", revision=1_000_000, started_at="2030-01-01T00:00:00Z")
            delta = HealthDelta(extension_id="guard", success=10, failure=0, breaker="closed")
            health = RouterHealth(instance="r1", sequence=sequence, deltas=[delta])
            for subject, message in (("status", status), ("health", health)):
                await nc.publish(f"beamline.router.v1.{subject}", message.model_dump_json().encode())
            await nc.flush()

        await report(1)
        await bench.wait("RoutingPolicy", "default", "Programmed", "True")
        await bench.wait("Extension", "guard", "Programmed", "True")

        def written() -> list[str]:
            return [
                f"{seen.request.method.value} {seen.request.url.path}"
                for seen in counted.seen
                if seen.request.method != kmock.method.GET
                and "/leases/" not in seen.request.url.path
                and "/selfsubjectaccessreviews" not in seen.request.url.path
            ]

        quiet = time.monotonic()
        before = len(written())
        for sequence in range(2, 1000):  # until what the objects' first day brings is over
            await report(sequence)
            await asyncio.sleep(0.2)
            if len(written()) != before:
                before, quiet = len(written()), time.monotonic()
            if time.monotonic() - quiet > 2:
                break
        reads, audit = len(counted.seen), await bench.audit()
        for more in range(round(IDLE_S / 0.2)):
            await report(1000 + more)
            await asyncio.sleep(0.2)
    assert written()[before:] == []
    assert await bench.audit() == audit
    assert len(counted.seen) > reads, "the full compare went on meanwhile"


async def test_changes_made_while_the_database_or_nats_is_away_are_there_soon_after(
    cluster: Any, namespace: str, own_postgres: LocalPostgres, own_nats: LocalNats
) -> None:
    await migrate(own_postgres.url())
    api = await KubeApi.connect(str(cluster.kubeconfig))
    registry = await PostgresRegistry.connect(own_postgres.url())
    settings = {
        "kubeconfig": str(cluster.operator_kubeconfig(namespace)), "namespaces": namespace,
        "database_url": own_postgres.url(), "nats_url": own_nats.url, "metrics_port": 0,
        "metrics_host": "127.0.0.1",
    }  # fmt: skip
    bench = Bench(api, registry, settings, namespace)
    try:
        await bench.start()
        await bench.extension("before", workload=None)
        await bench.wait("Extension", "before", "Synced", "True")
        own_nats.stop()
        own_postgres.stop()
        await bench.extension("before", workload=None, timeoutMs=77)
        await bench.wait("Extension", "before", "Synced", "False", "RegistryUnavailable")
        await asyncio.sleep(3)  # long enough for pauses between attempts to have grown
        await bench.extension("during", workload=None)
        own_nats.start()
        own_postgres.start()
        back = time.monotonic()
        for name in ("before", "during"):
            await bench.wait("Extension", name, "Synced", "True")
        took = time.monotonic() - back
        print(f"done {took:.1f} s after the end")
        assert took < OUTAGE_OVER_S
        assert (await bench.rows())["before"].timeout_ms == 77
    finally:
        await bench.stop()
        await registry.close()
        await api.close()
