"""A cluster, routers and NATS that are well, as documents that a test can break before a doctor looks."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from beamline_cli.doctor.patient import RouterAnswer
from beamline_contract import __version__
from beamline_contract.crd import crd
from beamline_sdk.deployment.kube_api import KubeError
from beamline_sdk.nats_probe import NatsFacts

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
Break = Callable[["World"], None]


class World:
    """Documents by path, answers of routers, and what NATS says; changed by a case before it is looked at."""

    def __init__(self) -> None:
        self.version = {"gitVersion": "v1.34.2", "major": "1", "minor": "34"}
        self.documents: dict[str, dict[str, Any]] = {
            "/apis/beamline.io/v1alpha1": {
                "resources": [
                    {"name": name}
                    for plural in ("extensions", "routingpolicies")
                    for name in (plural, f"{plural}/status")
                ]
            },
            "/api/v1/namespaces/models": {
                "metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
            },
            "/apis/coordination.k8s.io/v1/namespaces/beamline/leases/beamline-operator": {
                "spec": {
                    "holderIdentity": "pod-1",
                    "renewTime": (NOW - timedelta(seconds=3)).isoformat(),
                    "leaseDurationSeconds": 15,
                }
            },
            "/api/v1/namespaces/models/secrets/keys": {"data": {"OPENAI_API_KEY": "never shown"}},
        }
        for kind, plural in (("Extension", "extensions"), ("RoutingPolicy", "routingpolicies")):
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.beamline.io"
            conditions = [{"type": name, "status": "True"} for name in ("NamesAccepted", "Established")]
            definition = copy.deepcopy(crd(kind))  # type: ignore[arg-type]
            self.documents[path] = {
                **definition,
                "status": {"storedVersions": ["v1alpha1"], "conditions": conditions},
            }
        self.lists: dict[str, list[dict[str, Any]]] = {
            "deployments": [deployment("operator", 2), deployment("router", 3)],
            "pods": [pod("extension-1")],
            "poddisruptionbudgets": [
                {
                    "metadata": {"name": "beamline-router", "namespace": "beamline"},
                    "spec": {"selector": {"matchLabels": {"app.kubernetes.io/component": "router"}}},
                    "status": {"expectedPods": 3, "disruptionsAllowed": 1},
                }
            ],
            "extensions": [extension("openai-gpt4")],
            "routingpolicies": [policy("default")],
            "secrets": [],
        }
        self.denied: set[str] = set()
        self.forbidden: set[str] = set()
        """Parts of paths that answer 403."""
        self.clock = NOW
        self.routers = [router("router-1"), router("router-2"), router("router-3")]
        self.nats: NatsFacts | Exception = NatsFacts("2.12.0", 1048576, True, True, 1.0)

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> dict[str, Any]:
        self._may(path)
        if path == "/version":
            return self.version
        if "accessreviews" in path:
            wish = body["spec"]["resourceAttributes"]
            who = "operator" if "user" in body["spec"] else "self"
            asked = f"{who} {wish['verb']} {wish['resource']}"
            return {"status": {"allowed": asked not in self.denied}}
        found = self.documents.get(path)
        if found is None:
            raise KubeError(404, "NotFound", f"{path} not found")
        return found

    async def find(self, path: str) -> dict[str, Any] | None:
        self._may(path)
        return self.documents.get(path)

    async def items(self, path: str, *_: Any, **__: Any) -> AsyncIterator[dict[str, Any]]:
        self._may(path)
        for item in self.lists[path.rpartition("/")[2]]:
            yield item

    async def get_clock(self) -> datetime:
        return self.clock

    def _may(self, path: str) -> None:
        for part in self.forbidden:
            if part in path:
                raise KubeError(403, "Forbidden", f"{part} is forbidden")


def deployment(component: str, replicas: int) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": component, "app.kubernetes.io/version": __version__}
    env = [
        {"name": "BEAMLINE_LEASE_NAMESPACE", "value": "beamline"},
        {"name": "BEAMLINE_LEASE_NAME", "value": "beamline-operator"},
    ]
    return {
        "metadata": {"name": f"beamline-{component}", "namespace": "beamline", "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/component": component}},
            "template": {
                "spec": {
                    "serviceAccountName": f"beamline-{component}",
                    "containers": [{"name": component, "args": [component], "env": env}],
                }
            },
        },
        "status": {"availableReplicas": replicas, "updatedReplicas": replicas},
    }


def pod(name: str) -> dict[str, Any]:
    return {
        "metadata": {"uid": name, "name": name, "namespace": "models"},
        "status": {"containerStatuses": [{"image": "x:1", "state": {"running": {}}}]},
    }


def stored(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    true = {"status": "True", "observedGeneration": 1, "reason": "Ready"}
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": "models", "generation": 1, "uid": name},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", **true}, {"type": "Programmed", **true}]},
    }


def extension(name: str) -> dict[str, Any]:
    ref = {"name": "keys", "key": "OPENAI_API_KEY"}
    workload = {"image": "x:1", "env": [{"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": ref}}]}
    return stored("Extension", name, {"type": "provider", "workload": workload})


def policy(name: str) -> dict[str, Any]:
    return stored("RoutingPolicy", name, {"steps": []})


def router(name: str, **said: Any) -> RouterAnswer:
    well = {
        "status": "ready",
        "revision": 7,
        "age_seconds": 4.0,
        "refused": [],
        "keys_total": 2,
        "breakers": {"openai_gpt4": "closed"},
        "version": __version__,
        "unix_ms": 1_000_000.0,
    }
    return RouterAnswer(name, {**well, **said}, 1_000_000.0)


def put(place: str, **changed: Any) -> Break:
    """Changes fields of a document: ``place`` is a path, or ``list/number``."""

    def act(world: World) -> None:
        kind, _, number = place.partition("#")
        target = world.lists[kind][int(number)] if number else world.documents[place]
        for path, value in changed.items():
            *parents, last = path.split("__")
            inner: Any = target
            for name in parents:
                inner = inner[int(name)] if isinstance(inner, list) else inner[name]
            inner[last] = value

    return act


def state(**changed: Any) -> Break:
    return lambda world: [setattr(world, name, value) for name, value in changed.items()] and None
