"""What every adapter of the deployments port promises, whatever it runs workloads on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from beamline_contract.workload import Workload
from beamline_sdk.deployment.port import DeploymentRequest, Deployments, DeploymentStatus, Phase
from beamline_sdk.deployment.process import ProcessDeployments
from beamline_sdk.deployment.supervisor import Timing

SERVES = """
import http.server, os, sys
class Probe(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["METRICS_PORT"])), Probe).serve_forever()
"""
QUICK = Timing(first_backoff_s=0.02, max_backoff_s=0.1, stop_s=5.0, probe_ready_s=0.1)


@pytest.fixture(params=["process"])
async def deployments(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployments]:
    """Each adapter in turn, with nothing deployed."""
    adapter = ProcessDeployments(tmp_path / "logs", cwd=tmp_path, timing=QUICK)
    yield adapter
    await adapter.stop()


def wanted(
    code: str = SERVES, *, hash_: str = "one", replicas: int = 1, name: str = "guard"
) -> DeploymentRequest:
    workload = Workload(image="python:3.13", command=(sys.executable, "-c", code), replicas=replicas)
    return DeploymentRequest(
        namespace="default", name=name, owner_uid="u-1", generation=1, workload=workload, replicas=replicas,
        env={"BEAMLINE_EXTENSION_ID": name}, hash=hash_,
    )  # fmt: skip


async def until(
    deployments: Deployments, phase: Phase, *, hash_: str = "one", name: str = "guard"
) -> DeploymentStatus:
    async with asyncio.timeout(30):
        while True:
            status = await deployments.get_status("default", name)
            if status.phase is phase and status.hash in {hash_, ""}:
                return status
            await asyncio.sleep(0.02)


async def test_what_was_never_deployed_is_absent(deployments: Deployments) -> None:
    assert (await deployments.get_status("default", "guard")).phase is Phase.ABSENT


async def test_a_workload_becomes_ready_with_all_its_replicas(deployments: Deployments) -> None:
    await deployments.deploy(wanted(replicas=2))
    status = await until(deployments, Phase.READY)
    assert (status.replicas, status.ready_replicas, status.hash) == (2, 2, "one")


async def test_deploying_the_same_hash_again_changes_nothing(deployments: Deployments) -> None:
    await deployments.deploy(wanted())
    before = await until(deployments, Phase.READY)
    await deployments.deploy(wanted())
    assert await deployments.get_status("default", "guard") == before


async def test_another_hash_replaces_what_runs(deployments: Deployments) -> None:
    await deployments.deploy(wanted())
    before = await until(deployments, Phase.READY)
    await deployments.deploy(wanted(hash_="two"))
    after = await until(deployments, Phase.READY, hash_="two")
    assert after.details != before.details


async def test_no_replicas_is_a_state_of_its_own(deployments: Deployments) -> None:
    await deployments.deploy(wanted())
    await until(deployments, Phase.READY)
    await deployments.deploy(wanted(hash_="zero", replicas=0))
    status = await until(deployments, Phase.SCALED_TO_ZERO, hash_="zero")
    assert status.ready_replicas == 0


async def test_a_workload_that_ends_again_and_again_is_failed_with_its_last_words(
    deployments: Deployments,
) -> None:
    await deployments.deploy(wanted("import sys; sys.exit('no such table: prices')"))
    status = await until(deployments, Phase.FAILED)
    assert "no such table: prices" in status.message


async def test_a_deleted_workload_is_absent_and_deleting_it_again_is_fine(deployments: Deployments) -> None:
    await deployments.deploy(wanted())
    await until(deployments, Phase.READY)
    await deployments.delete("default", "guard")
    await deployments.delete("default", "guard")
    assert (await deployments.get_status("default", "guard")).phase is Phase.ABSENT


async def test_workloads_do_not_disturb_each_other(deployments: Deployments) -> None:
    await deployments.deploy(wanted())
    await deployments.deploy(wanted("raise SystemExit(1)", name="broken"))
    await until(deployments, Phase.READY)
    await until(deployments, Phase.FAILED, name="broken")
    assert (await deployments.get_status("default", "guard")).phase is Phase.READY
