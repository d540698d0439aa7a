"""A real Kubernetes API for every test below this folder: found, or started once per run for all workers.

Order: ``KUBECONFIG`` with an allowed context, ``KUBEBUILDER_ASSETS``, a cached build, a build from the Go
modules pinned in ``controlplane/``. With none of these the tests are skipped with a line that says how to get
one, and where ``CI`` is set they fail instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from beamline_contract.objects import KINDS

HERE = Path(__file__).resolve().parent
sys.path.insert(
    0, str(HERE)
)  # tests are no package, and the keeper process imports these modules by the same name

from controlplane.audit import more_than_metadata  # noqa: E402
from controlplane.binaries import KUBECTL, Binaries, NoControlPlaneError, file_lock, find_or_build  # noqa: E402
from controlplane.client import Cluster, Rest  # noqa: E402
from controlplane.existing import existing_cluster  # noqa: E402
from controlplane.plane import ControlPlane  # noqa: E402
from controlplane.shared import shared_cluster  # noqa: E402


@pytest.hookimpl(tryfirst=True)  # before -m chooses by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("cluster")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds what is missing now: no test's time limit runs yet, and progress reaches the terminal."""
    if not any(
        {"cluster", "control_plane_binaries"} & set(getattr(item, "fixturenames", ()))
        for item in session.items
    ):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext(), suppress(NoControlPlaneError):
        find_or_build()  # where it can't, the fixture below says so


@pytest.fixture(scope="session")
def control_plane_binaries() -> Binaries:
    """etcd, kube-apiserver, kube-controller-manager and kubectl; built if need be."""
    try:
        return find_or_build()
    except NoControlPlaneError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all parallel workers of this run see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, run_folder: Path) -> Iterator[Cluster]:
    """The API server of this run with our CRDs, shared by all workers: use ``namespace`` too."""
    existing = existing_cluster()
    if existing is not None:
        with file_lock(run_folder / "crds.lock"):
            existing.apply_crds()
        yield existing
        return
    binaries: Binaries = request.getfixturevalue("control_plane_binaries")
    with shared_cluster(run_folder / "controlplane", binaries) as shared:
        yield shared
        assert not (told := more_than_metadata(shared.kubeconfig.parent)), told


@pytest.fixture
def own_cluster(control_plane_binaries: Binaries) -> Iterator[Cluster]:
    """A control plane of this test alone, for tests that stop or kill it. It takes seconds to start."""
    plane = ControlPlane(control_plane_binaries)
    try:
        plane.start()
        own = Cluster(plane.kubeconfig, control_plane_binaries.path(KUBECTL), plane)
        own.apply_crds()
        yield own
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def rest(cluster: Cluster) -> Iterator[Rest]:
    """Plain requests to the shared API server with full rights."""
    with cluster.client() as client:
        plain = Rest(client)
    yield plain
    plain.close()


@pytest.fixture
def namespace(cluster: Cluster, rest: Rest) -> Iterator[str]:
    """A fresh namespace, deleted afterwards without waiting for its end.

    Finalizers go with it: no operator is left that would, and Kubernetes tries to empty a namespace again and
    again, at the cost of half a core for a few dozen of them.
    """
    name = f"test-{uuid4().hex[:10]}"
    made = rest.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert made.accepted, made.message
    yield name
    rest.request("DELETE", f"/api/v1/namespaces/{name}", {"propagationPolicy": "Background"})
    for kind in KINDS:
        for left in rest.request("GET", rest.path(name, kind)).body.get("items", ()):
            path = rest.path(name, kind, left["metadata"]["name"])
            rest.request("PATCH", path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")


@pytest.fixture
async def bench(cluster: Any, namespace: str, database_url: str, nats_server: Any) -> AsyncIterator[Any]:
    """A namespace, a database and NATS for operators that the test starts in this process."""
    from operatorbench import Bench

    from beamline_registry.migrate import migrate
    from beamline_registry.postgres import PostgresRegistry
    from beamline_sdk.deployment.kube_api import KubeApi

    await migrate(database_url)
    api = await KubeApi.connect(str(cluster.kubeconfig))
    registry = await PostgresRegistry.connect(database_url)
    settings = {
        "kubeconfig": str(cluster.operator_kubeconfig(namespace)),
        "namespaces": namespace,
        "database_url": database_url,
        "nats_url": nats_server.url,
        "metrics_port": 0,
        "metrics_host": "127.0.0.1",
        "lease_retry_s": 0.2,
    }
    made = Bench(api, registry, settings, namespace)
    try:
        yield made
    finally:
        await made.stop()
        await registry.close()
        await api.close()
