"""What was stored when v1alpha1 was new is read, and served, by this version: nobody writes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from controlplane.client import Cluster
from operatorbench import Bench

from beamline_contract.crd import crd
from beamline_contract.objects import KINDS, PLURAL
from beamline_registry.migrate import migrate
from beamline_registry.postgres import PostgresRegistry
from beamline_sdk.deployment.kube_api import KubeApi

FIRST = Path(__file__).resolve().parents[1] / "unit" / "contract" / "firstform"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
STORED: dict[str, Any] = {
    "type": "provider",
    "subject": "acme.provider.old.v1",
    "config": {"a": [1, {"b": None}]},
    "workload": {"image": "x:1", "replicas": 2, "env": [{"name": "A_WORD", "value": "1"}]},
}
POLICY: dict[str, Any] = {
    "steps": [{"action": "select_provider", "providers": [{"extensionRef": {"name": "old"}}]}],
}
SINCE_THEN = {
    "updateStrategy": {"type": "RollingUpdate"},
    "revisionHistoryLimit": 5,
    "progressDeadlineSeconds": 300,
    "rollback": "manual",
}
"""What the schema fills in today, of what there was no word for then."""


@pytest.fixture
async def bench(own_cluster: Cluster, database_url: str, nats_server: Any) -> AsyncIterator[Bench]:
    """On an API server of its own: its definitions change."""
    await migrate(database_url)
    api = await KubeApi.connect(str(own_cluster.kubeconfig))
    registry = await PostgresRegistry.connect(database_url)
    settings = {
        "kubeconfig": str(own_cluster.operator_kubeconfig("default")),
        "namespaces": "default",
        "database_url": database_url,
        "nats_url": nats_server.url,
        "metrics_port": 0,
        "metrics_host": "127.0.0.1",
        "lease_retry_s": 0.2,
    }
    made = Bench(api, registry, settings, "default")
    try:
        yield made
    finally:
        await made.stop()
        await registry.close()
        await api.close()


async def serve(bench: Bench, forms: list[dict[str, Any]]) -> None:
    """Puts definitions in place of those that are there."""
    for form in forms:
        path = f"{DEFINITIONS}/{form['metadata']['name']}"
        current = await bench.api.request("GET", path)
        current["spec"] = {**form["spec"], "conversion": {"strategy": "None"}}
        await bench.api.request("PUT", path, body=current)


async def test_what_the_first_form_stored_is_read_with_defaults_and_served_without_a_write(
    bench: Bench,
) -> None:
    await serve(bench, [yaml.safe_load((FIRST / f"{kind.lower()}.yaml").read_text()) for kind in KINDS])

    async def stored_as_then() -> bool:
        """The definitions are taken in a moment later: what is unknown is pruned from then on."""
        found = await bench.extension("probe", workload={"image": "x:1"})
        await bench.delete("Extension", "probe")
        return not SINCE_THEN.keys() & found["spec"]["workload"].keys()

    await bench.until(stored_as_then, "the first form")
    before = {
        "Extension": await bench.extension("old", **STORED),
        "RoutingPolicy": await bench.apply("RoutingPolicy", "old-policy", POLICY),
    }
    await serve(bench, [crd(kind) for kind in KINDS])

    async def defaulted() -> bool:
        found = await bench.get("Extension", "old")
        return found is not None and SINCE_THEN.items() <= found["spec"]["workload"].items()

    await bench.until(defaulted, "the defaults of what came later, read without a write")
    policy = await bench.get("RoutingPolicy", "old-policy")
    assert policy is not None
    assert policy["spec"]["steps"][0]["overlap"] is False
    names = {"Extension": "old", "RoutingPolicy": "old-policy"}
    for kind, name in names.items():
        found = await bench.get(kind, name)
        assert found is not None
        assert found["metadata"]["resourceVersion"] == before[kind]["metadata"]["resourceVersion"]

    await bench.start()
    for kind, name in names.items():
        await bench.wait(kind, name, "Synced", "True")
        await bench.wait(kind, name, "ResolvedRefs", "True")
        found = await bench.get(kind, name)
        assert found is not None
        assert found["metadata"]["generation"] == 1
        writers = {
            entry["manager"]
            for entry in found["metadata"]["managedFields"]
            if "f:spec" in entry.get("fieldsV1", {})
        }
        assert writers == {"test"}, f"nobody wrote the spec of {PLURAL[kind]}"  # type: ignore[index]
    deployment = await bench.until(lambda: bench.get("Deployment", "old"), "the Deployment")
    assert deployment["spec"]["progressDeadlineSeconds"] == 300
    assert deployment["spec"]["replicas"] == 2
    row = (await bench.rows())["old"]
    assert row.config == STORED["config"]
    assert row.subject == STORED["subject"]
