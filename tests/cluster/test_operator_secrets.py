"""What an operator that rolls on rotation asks about Secrets: their metadata, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from controlplane.audit import answers, more_than_metadata
from faultyapi import FaultyApi
from operatorbench import WORKLOAD, Bench

from beamline_sdk.deployment.kube_api import METADATA, METADATA_LIST, KubeApi


@pytest.fixture
async def recorded(bench: Bench) -> AsyncIterator[FaultyApi]:
    """In front of the API server: keeps every request of the operator."""
    async with FaultyApi(Path(bench.settings["kubeconfig"])) as server:
        yield server


def asked(recorded: FaultyApi) -> list[tuple[str, str, str | None]]:
    """(method, path, Accept) of what was asked about Secrets and ConfigMaps."""
    return [
        (seen.request.method.value, seen.request.url.path, seen.request.headers.get("Accept"))
        for seen in recorded.seen
        if seen.request.url.path.rsplit("/", 1)[-1] in {"secrets", "configmaps"}
        or "/secrets/" in seen.request.url.path
        or "/configmaps/" in seen.request.url.path
    ]


async def put(bench: Bench, value: str, **labels: str) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "labels": labels},
        "stringData": {"key": value},
    }
    await bench.api.apply(f"/api/v1/namespaces/{bench.namespace}/secrets/keys", secret, field_manager="test")


async def test_lists_and_watches_ask_for_metadata_also_after_the_watch_broke(
    recorded: FaultyApi, bench: Bench, tmp_path: Path
) -> None:
    await put(bench, "first", **{"beamline.io/roll": "true"})
    await bench.start(kubeconfig=recorded.kubeconfig(tmp_path / "kubeconfig"))
    await bench.extension("reader", workload={**WORKLOAD, "envFrom": [{"secretRef": {"name": "keys"}}]})
    before = await bench.until(lambda: bench.get("Deployment", "reader"), "deployment")
    recorded.cut()
    await put(bench, "second", **{"beamline.io/roll": "true"})

    async def rolled() -> bool:
        found = await bench.get("Deployment", "reader")
        return found is not None and found["spec"]["template"] != before["spec"]["template"]

    await bench.until(rolled, "new pods after a rotation")
    found = asked(recorded)
    assert {method for method, _, _ in found} == {"GET"}
    assert {path.rsplit("/", 1)[-1] for _, path, _ in found} == {"secrets", "configmaps"}, "never one by name"
    assert {accept for _, _, accept in found} == {METADATA, METADATA_LIST}, "and no second choice"


async def test_the_record_would_show_a_request_for_more(
    recorded: FaultyApi, bench: Bench, tmp_path: Path
) -> None:
    await put(bench, "first")
    path = f"/api/v1/namespaces/{bench.namespace}/secrets/keys"
    api = await KubeApi.connect(recorded.kubeconfig(tmp_path / "kubeconfig"))
    await asyncio.gather(api.request("GET", path), return_exceptions=True)
    await api.close()
    assert ("GET", path, "application/json") in asked(recorded)


async def test_the_log_of_the_api_server_tells_content_from_metadata(
    own_cluster: Any, tmp_path: Path
) -> None:
    from controlplane.chartaccount import make_account, write_kubeconfig
    from controlplane.client import Rest

    with own_cluster.client() as client:
        rest = Rest(client)
    token = make_account(rest, "roles", ["default"])
    rest.close()
    login = write_kubeconfig(own_cluster.kubeconfig, token, tmp_path / "kubeconfig")
    api, folder = await KubeApi.connect(str(login)), own_cluster.kubeconfig.parent
    path = "/api/v1/namespaces/default/configmaps"
    await api.request("GET", path, accept=METADATA_LIST)
    assert [entry["verb"] for entry in answers(folder)] == ["list"]
    assert more_than_metadata(folder) == []
    await api.request("GET", path)
    await api.close()
    assert more_than_metadata(folder) == [f"system:serviceaccount:default:beamline-operator: list {path}"]
