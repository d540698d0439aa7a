"""The operator among real failures: killed in the middle, and with its API server, database or NATS gone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from operatorbench import WORKLOAD, Bench

from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPostgres
from beamline_contract.objects import ObjectKey
from beamline_operator.core.reconciler import Reconciler, RetryLater
from beamline_operator.core.settings import ReconcileSettings
from beamline_operator.edges.kube_store import KubeStore
from beamline_operator.edges.lease import RENEW_S, RETRY_S
from beamline_operator.fakes import MemoryHints
from beamline_registry.migrate import migrate
from beamline_registry.postgres import PostgresRegistry
from beamline_sdk.deployment.kube_api import KubeApi
from beamline_sdk.deployment.kubernetes import KubernetesDeployments

OVER_S = 5.0
"""From the moment at which the API server answers again. Measured: at most 2."""


class MortalApi(KubeApi):
    """Stands still after its ``dies_after``-th answer: the request took effect, nobody hears of it."""

    dies_after: int | None = None
    answers = 0
    written: list[str]
    reached: asyncio.Event

    async def request(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        try:
            return await super().request(method, path, **how)
        finally:
            self.answers += 1
            if method != "GET" and not path.endswith("/status"):
                self.written.append(f"{method} {path}")
            if self.answers == self.dies_after:
                self.reached.set()
                await asyncio.Event().wait()


class Process:
    """The reconciling part of an operator, without watches: a start lists everything."""

    def __init__(self, bench: Bench, api: MortalApi) -> None:
        self.api, self.bench = api, bench
        self.epoch = 0
        self.due: set[ObjectKey] = set()
        self.store = KubeStore(api, namespaces=(bench.namespace,))
        self.store.on_change = self.due.add
        self.reconciler = Reconciler(
            self.store, KubernetesDeployments(api), bench.registry, MemoryHints(), epoch=lambda: self.epoch,
            settings=ReconcileSettings(), now=lambda: datetime.now(UTC),
        )  # fmt: skip
        self.reconciler.notify = self.due.add

    async def start(self) -> None:
        self.epoch = await self.bench.registry.acquire_epoch("process")
        await self.store.relist()
        self.due |= self.reconciler.learn()

    async def settle(self) -> None:
        while self.due:
            key = self.due.pop()
            try:
                await self.reconciler.reconcile(key)
            except RetryLater:
                self.due.add(key)

    async def run(self, dies_after: int | None) -> int:
        """Settles, or dies on the way. Returns the number of answers."""
        self.api.written = []
        self.api.answers, self.api.dies_after, self.api.reached = 0, dies_after, asyncio.Event()
        settling = asyncio.create_task(self.settle())
        reached = asyncio.create_task(self.api.reached.wait())
        await asyncio.wait({settling, reached}, return_when=asyncio.FIRST_COMPLETED)
        if settling.done():
            settling.result()
        for task in (settling, reached):
            task.cancel()
        await asyncio.gather(settling, reached, return_exceptions=True)
        await self.reconciler.batcher.stop()
        return self.api.answers


@pytest.mark.parametrize("scenario", ["created", "edited", "deleted"])
async def test_killed_after_any_answer_of_the_api_server_it_ends_where_it_would_have(
    bench: Bench, scenario: str
) -> None:
    api = await MortalApi.connect(bench.settings["kubeconfig"])
    api.written = []

    async def play(name: str, dies_after: int | None) -> tuple[int, dict[str, Any]]:
        process = Process(bench, api)
        await bench.extension(name, workload={**WORKLOAD, "disruption": {}})
        await process.start()
        if scenario != "created":
            await process.run(None)
            if scenario == "edited":
                await bench.extension(name, timeoutMs=9, workload={**WORKLOAD, "replicas": 2})
            else:
                await bench.delete("Extension", name)
            await process.store.relist()
        answers = await process.run(dies_after)
        if dies_after is not None:
            process = Process(bench, api)
            await process.start()
            await process.run(None)
            process = Process(bench, api)
            await process.start()
            await process.run(None)
            assert api.written == [], "the second start has nothing to write"
        found = await _picture(bench, name)
        await bench.delete("Extension", name)
        ending = Process(bench, api)
        await ending.start()
        await ending.run(None)
        await bench.gone("Extension", name)
        return answers, found

    answers, expected = await play("calm", None)
    assert answers >= 5
    for number in range(1, answers + 1):
        _, found = await play(f"killed-{number}", number)
        assert found == expected, f"killed after answer {number} of {answers}"
    await api.close()


async def _picture(bench: Bench, name: str) -> dict[str, Any]:
    row = (await bench.rows()).get(name.replace("-", "_"))
    stored, deployment = await bench.get("Extension", name), await bench.get("Deployment", name)
    status = stored["status"] if stored is not None else {}
    budget = await bench.get("PodDisruptionBudget", name)
    return {
        "row": (row.generation, row.timeout_ms) if row is not None else None,
        "audit": [action for known, action in await bench.audit() if known == name.replace("-", "_")],
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())],
        "replicas": deployment["spec"]["replicas"] if deployment is not None and stored is not None else None,
        "budget": budget is not None and stored is not None,
        "same hash": stored is None or deployment is None or (
            status["workloadHash"] == deployment["metadata"]["annotations"]["beamline.io/workload-hash"]
        ),
    }  # fmt: skip


async def test_an_api_server_that_goes_away_and_comes_back(
    own_cluster: Any, database_url: str, nats_server: Any
) -> None:
    async with _opened(own_cluster, database_url, nats_server.url) as bench:
        await bench.start()
        await bench.extension("before")
        await bench.wait("Extension", "before", "Synced", "True")
        own_cluster.stop_apiserver()
        await asyncio.sleep(1)
        own_cluster.start_apiserver()
        back = time.monotonic()
        await bench.extension("after")
        await bench.delete("Service", "before")
        await bench.wait("Extension", "after", "Synced", "True")
        await bench.until(lambda: bench.get("Service", "before"), "the Service again")
        took = time.monotonic() - back
        print(f"done {took:.1f} s after the end")
        assert took < OVER_S
        assert await bench.audit() == [("before", "created"), ("after", "created")]


@pytest.mark.parametrize("still_s", [3.0, RENEW_S + RETRY_S + 0.5], ids=["for a moment", "beyond the Lease"])
async def test_an_api_server_that_stands_still_and_goes_on(
    own_cluster: Any, database_url: str, nats_server: Any, still_s: float
) -> None:
    """Connections are taken and nothing is answered, on watches and on requests alike."""
    async with _opened(own_cluster, database_url, nats_server.url) as bench:
        await bench.start(lease_retry_s=RETRY_S)
        await bench.extension("before")
        await bench.wait("Extension", "before", "Synced", "True")
        await bench.until(lambda: bench.get("Service", "before"), "its Service")
        server = own_cluster.plane.pids()["kube-apiserver"]
        await bench.extension("before", timeoutMs=77)
        os.kill(server, signal.SIGSTOP)
        await asyncio.sleep(still_s)
        os.kill(server, signal.SIGCONT)
        back = time.monotonic()
        await bench.extension("after")
        await bench.delete("Service", "before")
        for name in ("before", "after"):
            await bench.wait("Extension", name, "Synced", "True")
        await bench.until(lambda: bench.get("Service", "before"), "the Service again")
        took = time.monotonic() - back
        print(f"done {took:.1f} s after the end")
        assert took < OVER_S
        assert sorted(await bench.audit()) == [
            ("after", "created"), ("before", "created"), ("before", "updated"),
        ]  # fmt: skip


async def test_a_database_and_a_nats_that_go_away_and_come_back(
    cluster: Any, namespace: str, own_postgres: LocalPostgres, own_nats: LocalNats
) -> None:
    async with _opened(cluster, own_postgres.url(), own_nats.url, namespace) as bench:
        await bench.start()
        await bench.extension("before", workload=None)
        await bench.wait("Extension", "before", "Synced", "True")
        own_nats.stop()
        own_postgres.stop()
        await bench.extension("before", workload=None, timeoutMs=77)
        await bench.extension("during", workload=None)
        away = await bench.wait("Extension", "before", "Synced", "False", "RegistryUnavailable")
        assert "the change is kept" in away["message"]
        await bench.wait("Extension", "during", "Reconciling", "True")
        own_postgres.start()
        await bench.wait("Extension", "before", "Synced", "True")
        await bench.wait("Extension", "during", "Synced", "True")
        own_nats.start()
        assert (await bench.rows())["before"].timeout_ms == 77
        assert sorted(await bench.audit()) == [
            ("before", "created"), ("before", "updated"), ("during", "created"),
        ]  # fmt: skip


class _opened:  # noqa: N801 -- reads as a function
    """A bench on servers of this test alone."""

    def __init__(self, cluster: Any, database_url: str, nats_url: str, namespace: str = "default") -> None:
        self._cluster, self._database_url = cluster, database_url
        self._nats_url, self._namespace = nats_url, namespace

    async def __aenter__(self) -> Bench:
        await migrate(self._database_url)
        self._api = await KubeApi.connect(str(self._cluster.kubeconfig))
        self._registry = await PostgresRegistry.connect(self._database_url)
        settings = {
            "kubeconfig": str(self._cluster.operator_kubeconfig(self._namespace)),
            "namespaces": self._namespace,
            "database_url": self._database_url,
            "nats_url": self._nats_url,
            "metrics_port": 0,
            "metrics_host": "127.0.0.1",
            "lease_retry_s": 0.2,
        }
        self._bench = Bench(self._api, self._registry, settings, self._namespace)
        return self._bench

    async def __aexit__(self, *_: object) -> None:
        await self._bench.stop()
        await self._registry.close()
        await self._api.close()
