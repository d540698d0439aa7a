"""A namespace of the real API server, a database, and the operators that a test starts there, in process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from beamline_contract.names import API_VERSION
from beamline_operator.app import OperatorSettings, run
from beamline_registry.port import AuditQuery
from beamline_registry.postgres import PostgresRegistry
from beamline_sdk.deployment.kube_api import KubeApi

WORKLOAD = {
    "image": "ghcr.io/beamline/beamline:0.1.0",
    "command": ["beamline", "extension", "run", "mock_provider"],
}
GROUP = "/apis/beamline.io/v1alpha1"
PLURAL = {"Extension": "extensions", "RoutingPolicy": "routingpolicies"}
OWNED = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/{}",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts/{}",
    "Service": "/api/v1/namespaces/{}/services/{}",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies/{}",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers/{}",
}
ALWAYS = ("Deployment", "ServiceAccount", "Service", "NetworkPolicy")
"""What every workload has."""


class Bench:
    """One namespace, one database, and the operators that a test starts there."""

    def __init__(
        self, api: KubeApi, registry: PostgresRegistry, settings: dict[str, Any], namespace: str
    ) -> None:
        self.api = api
        self.registry = registry
        self.settings = settings
        self.namespace = namespace
        self.patience_s = 30.0
        """For how long :meth:`until` waits."""
        self._running: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def start(self, **changed: Any) -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        settings = OperatorSettings(**{**self.settings, **changed})
        task = asyncio.create_task(run(settings, stop=stop, ready=ready))
        self._running.append((task, stop))
        await asyncio.wait({task, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()

    def environment(self, **changed: str) -> dict[str, str]:
        """Of an operator that is a process of its own, like those that :meth:`start` starts in this one."""
        return {
            **os.environ,
            "KUBECONFIG": self.settings["kubeconfig"],
            "BEAMLINE_DATABASE_URL": self.settings["database_url"],
            "BEAMLINE_NAMESPACES": self.namespace,
            "NATS_URL": self.settings["nats_url"],
            "METRICS_PORT": "0",
            **changed,
        }

    async def stop(self) -> None:
        for task, stop in self._running:
            stop.set()
            await asyncio.wait_for(task, 30)
        self._running.clear()

    def path(self, kind: str, name: str) -> str:
        if kind in OWNED:
            return OWNED[kind].format(self.namespace, name)
        return f"{GROUP}/namespaces/{self.namespace}/{PLURAL[kind]}/{name}"

    async def apply(self, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        document = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": dict(spec),
        }
        return await self.api.apply(self.path(kind, name), document, field_manager="test")

    async def extension(self, name: str, **spec: Any) -> dict[str, Any]:
        """An Extension with a workload; ``workload=None`` gives it none."""
        whole = {"type": "provider", "workload": WORKLOAD, **spec}
        stated = {field: value for field, value in whole.items() if value is not None}
        return await self.apply("Extension", name, stated)

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return await self.api.find(self.path(kind, name))

    async def delete(self, kind: str, name: str) -> None:
        await self.api.delete(self.path(kind, name))

    async def gone(self, kind: str, name: str) -> None:
        await self.until(lambda: self._is_gone(kind, name), f"{kind} {name} gone")

    async def condition(self, kind: str, name: str, what: str) -> dict[str, Any]:
        """A condition that speaks of the current generation, empty where there is none."""
        found = await self.get(kind, name)
        assert found is not None
        for condition in found.get("status", {}).get("conditions", []):
            if (
                condition["type"] == what
                and condition["observedGeneration"] == found["metadata"]["generation"]
            ):
                return dict(condition)
        return {}

    async def wait(
        self, kind: str, name: str, what: str, status: str, reason: str | None = None
    ) -> dict[str, Any]:
        async def there() -> dict[str, Any]:
            condition = await self.condition(kind, name, what)
            return (
                condition
                if condition.get("status") == status and reason in {None, condition["reason"]}
                else {}
            )

        return await self.until(there, f"{what}={status} ({reason}) of {kind} {name}")

    async def until(
        self, probe: Callable[[], Awaitable[Any]], what: str, *, seconds: float | None = None
    ) -> Any:
        end = time.monotonic() + (self.patience_s if seconds is None else seconds)
        while time.monotonic() < end:
            if found := await probe():
                return found
            for task, _ in self._running:
                if task.done():
                    task.result()
            await asyncio.sleep(0.05)
        raise AssertionError(f"never came: {what}")

    async def rows(self) -> dict[str, Any]:
        delta = await self.registry.read(0)
        return {row.id: row for row in (*delta.extensions, *delta.policies)}

    async def audit(self) -> list[tuple[str, str]]:
        return [
            (row.object_id, row.action) for row in reversed(await self.registry.audit(AuditQuery(limit=1000)))
        ]

    async def versions(self) -> dict[str, str]:
        """resourceVersion of everything that an operator could write here."""
        found = {}
        for kind in ("extensions", "routingpolicies"):
            async for item in self.api.items(f"{GROUP}/namespaces/{self.namespace}/{kind}"):
                found[f"{kind}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
        for kind, template in OWNED.items():
            async for item in self.api.items(template.format(self.namespace, "").rstrip("/")):
                found[f"{kind}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
        return found

    async def _is_gone(self, kind: str, name: str) -> bool:
        return await self.get(kind, name) is None
