"""The deployments port on local processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from beamline_sdk.deployment.process import ProcessDeployments
from beamline_sdk.deployment.supervisor import Timing
from harness.deployments_suite import DeploymentsSuite, Identity

QUICK = Timing(first_backoff_s=0.02, max_backoff_s=0.1, stop_s=5.0, probe_ready_s=0.1)


@pytest.fixture
async def deployments(tmp_path: Path) -> AsyncIterator[ProcessDeployments]:
    adapter = ProcessDeployments(tmp_path / "logs", cwd=tmp_path, timing=QUICK)
    yield adapter
    await adapter.stop()


@pytest.fixture
def where() -> str:
    return "default"


@pytest.fixture
def identity(deployments: ProcessDeployments) -> Identity:
    async def pids() -> object:
        return (await deployments.get_status("default", "guard")).details

    return pids


class TestProcessDeployments(DeploymentsSuite):
    """Every promise, with child processes of this machine."""
