"""Everything of the product on a real API server, for benchmarks: operator, routers, NATS, PostgreSQL, one
provider.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.parts import ROOT

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cluster")]

from controlplane.binaries import KUBECTL, find_or_build  # noqa: E402 -- the tests' API server is the benchmark's too
from controlplane.client import Cluster, Rest  # noqa: E402
from controlplane.plane import ControlPlane  # noqa: E402

from harness.processes import Process, eventually  # noqa: E402
from harness.world import World  # noqa: E402

ROUTERS = 3
__all__ = [
    "EXTENSION",
    "NAMESPACE",
    "POLICY",
    "ROUTERS",
    "Everything",
    "Process",
    "Rest",
    "World",
    "everything",
]

NAMESPACE = "default"
EXTENSION = {
    "apiVersion": "beamline.io/v1alpha1",
    "kind": "Extension",
    "metadata": {"name": "mock-provider"},
    "spec": {"type": "provider", "config": {"mode": "fixed", "answer": "v0"}},
}
POLICY = {
    "apiVersion": "beamline.io/v1alpha1",
    "kind": "RoutingPolicy",
    "metadata": {"name": "default"},
    "spec": {
        "steps": [{"action": "select_provider", "providers": [{"extensionRef": {"name": "mock-provider"}}]}]
    },
}


@dataclass(frozen=True)
class Everything:
    """What runs, and a kept connection to the API server."""

    rest: Rest
    world: World
    operator: Process
    routers: list[Process]
    plane: ControlPlane


@contextmanager
def everything() -> Iterator[Everything]:
    """Started, with one provider that every router serves."""
    binaries = find_or_build()
    plane = ControlPlane(binaries)
    world = World()
    try:
        plane.start()
        cluster = Cluster(plane.kubeconfig, binaries.path(KUBECTL), plane)
        cluster.apply_crds()
        world.start_infrastructure()
        routers = [
            world.router(f"router-{number}", BEAMLINE_ACCESS_LOG="false").start() for number in range(ROUTERS)
        ]
        operator = world.operator(plane.kubeconfig, NAMESPACE).start()
        with cluster.client() as client:
            rest = Rest(client)
        for manifest in (EXTENSION, POLICY):
            made = rest.create(NAMESPACE, manifest)
            if not made.accepted:
                raise RuntimeError(made.message)
        env = {
            "NATS_SUBJECT": "beamline.provider.mock_provider.v1",
            "NATS_QUEUE_GROUP": "mock_provider",
            "BEAMLINE_EXTENSION_ID": "mock_provider",
        }
        world.extension("mock_provider", env).start()
        for router in routers:
            eventually(
                lambda router=router: world.route(router, {"prompt": "?"}).status_code == 200, router.name
            )
        yield Everything(rest, world, operator, routers, plane)
        rest.close()
    finally:
        world.close()
        plane.stop()
        shutil.rmtree(Path(world.folder), ignore_errors=True)
