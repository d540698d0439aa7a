"""What every adapter of the deployments port promises, whatever it runs workloads on.

A test module derives :class:`DeploymentsSuite` and gives the fixtures ``deployments`` (nothing deployed),
``where`` (a namespace of its own) and ``identity`` (what runs now: process ids, pod names).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace

from beamline_contract.names import GROUP, MANAGED_BY
from beamline_contract.workload import Workload
from beamline_sdk.deployment.port import DeploymentRequest, Deployments, DeploymentStatus, Phase

SERVES = """
import http.server, os, sys
class Probe(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["METRICS_PORT"])), Probe).serve_forever()
"""
LAST_WORDS = "no such table: prices"
BREAKS = f"import sys; sys.exit({LAST_WORDS!r})"
Identity = Callable[[], Awaitable[object]]


def wanted(
    where: str, code: str = SERVES, *, hash_: str = "one", replicas: int = 1, name: str = "guard"
) -> DeploymentRequest:
    workload = Workload(image="python:3.13", command=(sys.executable, "-c", code), replicas=replicas)
    labels = {
        "app.kubernetes.io/part-of": "beamline",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        f"{GROUP}/extension-id": name,
    }
    return DeploymentRequest(
        namespace=where, name=name, owner_uid="", generation=1, workload=workload, replicas=replicas,
        env={"BEAMLINE_EXTENSION_ID": name, "BEAMLINE_STATE": hash_}, hash=hash_, labels=labels,
    )  # fmt: skip


async def until(
    deployments: Deployments, where: str, phase: Phase, *, hash_: str = "one", name: str = "guard"
) -> DeploymentStatus:
    async with asyncio.timeout(30):
        while True:
            status = await deployments.get_status(where, name)
            if status.phase is phase and status.hash in {hash_, ""}:
                return status
            await asyncio.sleep(0.02)


class DeploymentsSuite:
    """The promises."""

    async def test_what_was_never_deployed_is_absent(self, deployments: Deployments, where: str) -> None:
        assert (await deployments.get_status(where, "guard")).phase is Phase.ABSENT

    async def test_a_workload_becomes_ready_with_all_its_replicas(
        self, deployments: Deployments, where: str
    ) -> None:
        await deployments.deploy(wanted(where, replicas=2))
        status = await until(deployments, where, Phase.READY)
        assert (status.replicas, status.ready_replicas, status.hash) == (2, 2, "one")

    async def test_deploying_the_same_hash_again_changes_nothing(
        self, deployments: Deployments, where: str
    ) -> None:
        await deployments.deploy(wanted(where))
        before = await until(deployments, where, Phase.READY)
        await deployments.deploy(wanted(where))
        assert await deployments.get_status(where, "guard") == before

    async def test_another_hash_replaces_what_runs(
        self, deployments: Deployments, where: str, identity: Identity
    ) -> None:
        await deployments.deploy(wanted(where))
        await until(deployments, where, Phase.READY)
        before = await identity()
        await deployments.deploy(wanted(where, hash_="two"))
        await until(deployments, where, Phase.READY, hash_="two")
        assert await identity() != before

    async def test_no_replicas_is_a_state_of_its_own(self, deployments: Deployments, where: str) -> None:
        await deployments.deploy(wanted(where))
        await until(deployments, where, Phase.READY)
        await deployments.deploy(wanted(where, hash_="zero", replicas=0))
        status = await until(deployments, where, Phase.SCALED_TO_ZERO, hash_="zero")
        assert status.ready_replicas == 0

    async def test_a_workload_that_ends_again_and_again_is_failed_with_its_last_words(
        self, deployments: Deployments, where: str
    ) -> None:
        await deployments.deploy(wanted(where, BREAKS))
        status = await until(deployments, where, Phase.FAILED)
        assert LAST_WORDS in status.message

    async def test_a_deleted_workload_is_absent_and_deleting_it_again_is_fine(
        self, deployments: Deployments, where: str
    ) -> None:
        await deployments.deploy(wanted(where))
        await until(deployments, where, Phase.READY)
        await deployments.delete(where, "guard")
        await deployments.delete(where, "guard")
        assert (await deployments.get_status(where, "guard")).phase is Phase.ABSENT

    async def test_a_released_workload_runs_on_as_it_is(
        self, deployments: Deployments, where: str, identity: Identity
    ) -> None:
        await deployments.release(where, "guard")
        await deployments.deploy(wanted(where))
        before, running = await until(deployments, where, Phase.READY), await identity()
        for _ in range(2):
            await deployments.release(where, "guard")
        after = await deployments.get_status(where, "guard")
        assert after == replace(before, retained=True)
        assert await identity() == running

    async def test_workloads_do_not_disturb_each_other(self, deployments: Deployments, where: str) -> None:
        await deployments.deploy(wanted(where))
        await deployments.deploy(wanted(where, BREAKS, name="broken"))
        await until(deployments, where, Phase.READY)
        await until(deployments, where, Phase.FAILED, name="broken")
        assert (await deployments.get_status(where, "guard")).phase is Phase.READY
