"""A volume whose Secret or ConfigMap does not exist: the condition names it, until it is there."""

from __future__ import annotations

from typing import Any

import pytest
from operatorbench import WORKLOAD, Bench
from podplayer import PodPlayer

SECRET = {"name": "keys", "mountPath": "/etc/keys", "secret": {"name": "openai"}}
CONFIG = {"name": "rules", "mountPath": "/etc/rules", "configMap": {"name": "guard"}}
SAYS_SECRET = (
    "spec.workload.volumes[0].secret.name: the Secret openai does not exist, so nothing can be mounted at "
    "/etc/keys: create it"
)
SAYS_CONFIG = (
    "spec.workload.volumes[1].configMap.name: the ConfigMap guard does not exist, so nothing can be mounted "
    "at /etc/rules: create it"
)


async def make(bench: Bench, kind: str, name: str) -> None:
    resource = {"Secret": "secrets", "ConfigMap": "configmaps"}[kind]
    path = f"/api/v1/namespaces/{bench.namespace}/{resource}/{name}"
    await bench.api.apply(
        path, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}, field_manager="t"
    )


async def test_it_is_named_with_its_field_until_it_is_there(bench: Bench) -> None:
    async with PodPlayer(bench.api, bench.namespace):
        await bench.start()
        await bench.extension("guard", workload={**WORKLOAD, "volumes": [SECRET, CONFIG]})

        async def both() -> bool:
            told = (await bench.condition("Extension", "guard", "WorkloadReady")).get("message", "")
            return SAYS_SECRET in told and SAYS_CONFIG in told

        await bench.until(both, "a message that names both")
        await bench.wait("Extension", "guard", "WorkloadReady", "False", "CredentialsMissing")
        await bench.wait("Extension", "guard", "Ready", "False", "CredentialsMissing")
        await bench.wait("Extension", "guard", "Stalled", "True", "CredentialsMissing")
        await make(bench, "Secret", "openai")
        await make(bench, "ConfigMap", "guard")
        await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadReady")


@pytest.mark.parametrize(
    ("volume", "reason", "says"),
    [
        pytest.param(SECRET, "CredentialsMissing", SAYS_SECRET, id="a Secret"),
        pytest.param(CONFIG, "WorkloadFailed", SAYS_CONFIG.replace("[1]", "[0]"), id="a ConfigMap"),
    ],
)
async def test_each_has_the_reason_that_variables_from_it_have(
    bench: Bench, volume: dict[str, Any], reason: str, says: str
) -> None:
    async with PodPlayer(bench.api, bench.namespace):
        await bench.start()
        await bench.extension("guard", workload={**WORKLOAD, "volumes": [volume]})
        told = await bench.wait("Extension", "guard", "WorkloadReady", "False", reason)
        assert says in told["message"]
        events = f"/apis/events.k8s.io/v1/namespaces/{bench.namespace}/events"

        async def event() -> bool:
            selector = {"fieldSelector": "regarding.kind=Extension,reason=WorkloadFailed"}
            return any([says in one["note"] async for one in bench.api.items(events, selector)])

        await bench.until(event, "an event of the Extension with the same words")
