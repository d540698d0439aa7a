"""The deployments port on a real API server, and the provider of the framework that stands on it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from podplayer import PodPlayer

from beamline_sdk.deployment.kube_api import KubeApi
from beamline_sdk.deployment.kubernetes import KubernetesDeployments
from beamline_sdk.framework import DeploymentConfig, KubernetesDeploymentProvider
from harness.deployments_suite import BREAKS, LAST_WORDS, DeploymentsSuite, Identity


@pytest.fixture
async def api(cluster: Any) -> AsyncIterator[KubeApi]:
    made = await KubeApi.connect(str(cluster.kubeconfig))
    yield made
    await made.close()


@pytest.fixture
async def pods(api: KubeApi, namespace: str) -> AsyncIterator[PodPlayer]:
    async with PodPlayer(api, namespace, breaks=LAST_WORDS, last_words=LAST_WORDS) as player:
        yield player


@pytest.fixture
def deployments(api: KubeApi, pods: PodPlayer) -> KubernetesDeployments:
    return KubernetesDeployments(api)


@pytest.fixture
def where(namespace: str) -> str:
    return namespace


@pytest.fixture
def identity(pods: PodPlayer) -> Identity:
    return pods.names


class TestKubernetesDeployments(DeploymentsSuite):
    """Every promise, with Deployments of a cluster."""


@pytest.mark.usefixtures("pods")
async def test_a_provider_deploys_scales_and_rolls_back_on_a_cluster(
    cluster: Any, api: KubeApi, namespace: str
) -> None:
    config = DeploymentConfig(
        name="model-server", version="1.0.0", namespace=namespace, kubeconfig=str(cluster.kubeconfig),
        command=("serve", "--fast"), environment="staging",
    )  # fmt: skip
    provider = KubernetesDeploymentProvider(config)
    await provider.initialize()
    try:
        assert (await provider.health_check()).well
        first = await provider.deploy(wait_s=30)
        assert (first.success, first.status, first.deployment_id) == (
            True,
            "ready",
            f"{namespace}/model-server",
        )
        scaled = await provider.scale(first.deployment_id, 3, wait_s=30)
        assert (scaled.status, scaled.metadata["ready_replicas"]) == ("ready", 3)
        broken = config.model_copy(update={"command": (sys.executable, "-c", BREAKS), "replicas": 3})
        failed = await provider.deploy(broken, wait_s=30)
        assert (failed.success, failed.status) == (False, "failed")
        assert LAST_WORDS in failed.message
        back = await provider.rollback(first.deployment_id, wait_s=30)
        assert (back.success, back.status, back.metadata["ready_replicas"]) == (True, "ready", 3)
        live = await api.find(f"/apis/apps/v1/namespaces/{namespace}/deployments/model-server")
        assert live is not None
        assert live["metadata"]["labels"]["beamline.io/environment"] == "staging"
        assert live["spec"]["template"]["spec"]["containers"][0]["command"] == ["serve", "--fast"]
        assert (await provider.delete(first.deployment_id)).success
        gone = await provider.get_status(first.deployment_id)
        assert (gone.success, gone.status) == (False, "absent")
    finally:
        await provider.cleanup()


async def test_a_cluster_that_is_not_there_is_a_result_and_not_an_exception(tmp_path: Any) -> None:
    nowhere = tmp_path / "kubeconfig"
    nowhere.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:9'}}]\n"
        "contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]\n"
    )
    provider = KubernetesDeploymentProvider(DeploymentConfig(name="x", version="1", kubeconfig=str(nowhere)))
    await provider.initialize()
    try:
        result = await provider.deploy()
        assert (result.success, result.status) == (False, "refused")
        assert "can't be asked" in result.message
        assert (await provider.health_check()).status == "unhealthy"
    finally:
        await provider.cleanup()
