"""The framework's deployment provider on local processes."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from beamline_sdk.deployment.process import ProcessDeployments
from beamline_sdk.deployment.supervisor import Timing
from beamline_sdk.framework import DeploymentConfig, ProcessDeploymentProvider
from harness.deployments_suite import BREAKS, LAST_WORDS, SERVES

QUICK = Timing(first_backoff_s=0.02, max_backoff_s=0.1, stop_s=5.0, probe_ready_s=0.1)


def config(code: str = SERVES, **fields: object) -> DeploymentConfig:
    wanted = {"name": "server", "version": "1.0.0", "command": (sys.executable, "-c", code), **fields}
    return DeploymentConfig.model_validate(wanted)


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[ProcessDeploymentProvider]:
    adapter = ProcessDeployments(tmp_path / "logs", cwd=tmp_path, timing=QUICK)
    made = ProcessDeploymentProvider(config(), deployments=adapter)
    await made.initialize()
    yield made
    await made.cleanup()
    await adapter.stop()


def test_the_defaults_are_those_of_the_contract() -> None:
    made = DeploymentConfig(name="x", version="1")
    assert (made.environment, made.namespace, made.replicas) == ("development", "default", 1)
    assert (made.context, made.kubeconfig) == (None, None)


async def test_a_workload_is_deployed_scaled_rolled_back_and_removed(
    provider: ProcessDeploymentProvider,
) -> None:
    first = await provider.deploy(wait_s=30)
    assert (first.success, first.status, first.deployment_id) == (True, "ready", "default/server")
    again = await provider.deploy(wait_s=30)
    assert again == first, "the same state again changes nothing"
    scaled = await provider.scale("default/server", 2, wait_s=30)
    assert (scaled.status, scaled.metadata["ready_replicas"]) == ("ready", 2)
    broken = await provider.deploy(config(BREAKS), wait_s=30)
    assert (broken.success, broken.status) == (False, "failed")
    assert LAST_WORDS in broken.message
    back = await provider.rollback("default/server", wait_s=30)
    assert (back.success, back.status, back.metadata["ready_replicas"]) == (True, "ready", 2)
    off = await provider.scale("default/server", 0, wait_s=30)
    assert (off.success, off.status) == (True, "scaled-to-zero")
    assert (await provider.delete("default/server")).success
    assert (await provider.get_status("default/server")).status == "absent"


async def test_what_can_not_be_done_is_a_result_with_a_sentence(provider: ProcessDeploymentProvider) -> None:
    refused = [
        (await provider.rollback("default/server"), "nothing to roll back to"),
        (await provider.scale("default/server", 2), "was not deployed by this provider"),
        (await provider.scale("default/server", -1), "between 0 and 1000"),
    ]
    secret = {"name": "API_KEY", "value": "sk-1"}
    refused.append((await provider.deploy(config(command=())), "set workload.command"))
    refused.append((await provider.deploy(config(env=[secret])), "must use valueFrom.secretKeyRef"))
    for result, words in refused:
        assert not result.success
        assert words in result.message


async def test_processes_of_a_provider_end_with_it(tmp_path: Path) -> None:
    made = ProcessDeploymentProvider(config(logs=str(tmp_path / "logs")))
    await made.initialize()
    result = await made.deploy(wait_s=30)
    (pid,) = result.metadata["pids"]
    os.kill(pid, 0)
    await made.cleanup()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    after = await made.deploy()
    assert "not initialized" in after.message
