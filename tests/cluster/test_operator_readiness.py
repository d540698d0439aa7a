"""A pod that runs and is not ready is asked why, on the page that its readiness probe names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from operatorbench import WORKLOAD, Bench
from podplayer import PodPlayer
from prometheus_client import CollectorRegistry

from beamline_sdk.health import HealthServer


class Page:
    """The real health page of an extension. ``reason`` is what it says, None while it is ready."""

    def __init__(self) -> None:
        self.reason: str | None = "CredentialsMissing: OPENAI_API_KEY is not set"
        self.server = HealthServer(
            0, host="127.0.0.1", ready=lambda: self.reason, live=lambda: None, registry=CollectorRegistry()
        )

    @property
    def workload(self) -> dict[str, Any]:
        return {**WORKLOAD, "probes": {"port": self.server.port}, "progressDeadlineSeconds": 10}


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    made = Page()
    await made.server.start()
    yield made
    await made.server.stop()


async def test_a_missing_key_is_told_in_the_words_of_the_extension(bench: Bench, page: Page) -> None:
    async with PodPlayer(bench.api, bench.namespace, breaks=WORKLOAD["image"], trouble="unready"):
        await bench.start()
        await bench.extension("gpt", workload=page.workload)
        told = await bench.wait("Extension", "gpt", "WorkloadReady", "False", "CredentialsMissing")
        assert told["message"] == "0/1 replicas ready. A pod is not ready: OPENAI_API_KEY is not set."
        await bench.wait("Extension", "gpt", "Ready", "False", "CredentialsMissing")


async def test_another_reason_is_told_once_the_rollout_takes_too_long(bench: Bench, page: Page) -> None:
    page.reason = "ModelMissing: /models/guard.bin\nis not there"
    async with PodPlayer(bench.api, bench.namespace, breaks=WORKLOAD["image"], trouble="unready"):
        await bench.start()
        await bench.extension("guard", workload=page.workload)
        told = await bench.wait("Extension", "guard", "WorkloadReady", "False", "WorkloadFailed")
        assert "A pod is not ready: ModelMissing: /models/guard.bin is not there." in told["message"]


async def test_a_pod_that_does_not_answer_costs_no_more_than_its_words(bench: Bench, page: Page) -> None:
    await page.server.stop()
    async with PodPlayer(bench.api, bench.namespace, breaks=WORKLOAD["image"], trouble="unready"):
        await bench.start()
        await bench.extension("guard", workload=page.workload)
        told = await bench.wait("Extension", "guard", "WorkloadReady", "False", "WorkloadFailed")
        assert "The new pods do not become ready" in told["message"]
