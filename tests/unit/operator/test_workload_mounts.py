"""A pod that waits for the files of a volume: what is missing, in words, from the kubelet's events."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_sdk.deployment.mounts import missing_files, waits_for_files
from beamline_sdk.deployment.pods import trouble
from beamline_sdk.deployment.port import Phase

SCHEDULED = {"type": "PodScheduled", "status": "True"}
SECRET: dict[str, Any] = {"name": "keys", "secret": {"secretName": "openai"}}
CONFIG: dict[str, Any] = {"name": "rules", "configMap": {"name": "guard"}}
NO_SECRET = 'MountVolume.SetUp failed for volume "keys" : secret "openai" not found'
NO_CONFIG = 'MountVolume.SetUp failed for volume "rules" : configmap "guard" not found'
SAYS_SECRET = (
    "spec.workload.volumes[0].secret.name: the Secret openai does not exist, so nothing can be mounted at "
    "/etc/keys: create it, or make the volume optional."
)
SAYS_CONFIG = (
    "spec.workload.volumes[1].configMap.name: the ConfigMap guard does not exist, so nothing can be mounted "
    "at /etc/rules: create it, or make the volume optional."
)


def pod(*volumes: dict[str, Any], **status: Any) -> dict[str, Any]:
    waiting = {"name": "extension", "state": {"waiting": {"reason": "ContainerCreating"}}}
    mounts = [{"name": name, "mountPath": f"/etc/{name}"} for name in ("keys", "rules")]
    return {
        "metadata": {"name": "guard-1"},
        "spec": {
            "containers": [{"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts]}],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *(volumes or (SECRET, CONFIG))],
        },
        "status": {"conditions": [SCHEDULED], "containerStatuses": [waiting], **status},
    }


def event(note: str, at: str = "2026-01-01T00:00:00Z", name: str = "guard-1", **more: Any) -> dict[str, Any]:
    return {"note": note, "regarding": {"name": name}, "deprecatedLastTimestamp": at, **more}


@pytest.mark.parametrize(
    ("found", "waits"),
    [
        pytest.param(pod(), True, id="it is being created"),
        pytest.param(pod(containerStatuses=[]), True, id="the kubelet has said nothing of it yet"),
        pytest.param(pod(conditions=[]), False, id="no node has it"),
        pytest.param(
            pod(conditions=[SCHEDULED, {"type": "PodReadyToStartContainers", "status": "True"}]), False,
            id="its volumes are there, and its image is pulled",
        ),
        pytest.param(
            pod(containerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]), False,
            id="its image can't be pulled",
        ),
        pytest.param(pod(containerStatuses=[{"state": {"running": {}}}]), False, id="it runs"),
        pytest.param(pod({"name": "x", "emptyDir": {}}), False, id="no volume comes from an object"),
        pytest.param(
            pod({"name": "keys", "secret": {"secretName": "openai", "optional": True}}), False,
            id="it can do without",
        ),
    ],
)  # fmt: skip
def test_events_are_asked_for_where_nothing_but_files_can_be_missing(
    found: dict[str, Any], waits: bool
) -> None:
    assert waits_for_files(found) is waits


@pytest.mark.parametrize(
    ("events", "kind", "says"),
    [
        pytest.param([event(NO_SECRET)], "Secret", SAYS_SECRET, id="a Secret"),
        pytest.param([event(NO_CONFIG)], "ConfigMap", SAYS_CONFIG, id="a ConfigMap"),
        pytest.param(
            [event(NO_CONFIG), event(NO_SECRET)], "Secret", f"{SAYS_SECRET} {SAYS_CONFIG}",
            id="both, in the order in which they are asked for",
        ),
        pytest.param(
            [event(NO_SECRET, "2026-01-01T00:00:00Z"), event(NO_CONFIG, "2026-01-01T00:04:00Z")],
            "ConfigMap", SAYS_CONFIG, id="the one that is there meanwhile is left out",
        ),
        pytest.param(
            [
                event(NO_SECRET, "", series={"lastObservedTime": "2026-01-01T00:04:00.000000Z"}),
                event(NO_CONFIG, "", eventTime="2026-01-01T00:03:00.000000Z"),
            ],
            "Secret", f"{SAYS_SECRET} {SAYS_CONFIG}", id="times as newer reporters write them",
        ),
        pytest.param(
            [event(f"(combined from similar events): {NO_SECRET.replace('secret ', 'secrets ')}", "?")],
            "Secret", SAYS_SECRET, id="counted together, and without a time",
        ),
    ],
)  # fmt: skip
def test_each_object_that_is_missing_is_named_with_its_field(
    events: list[dict[str, Any]], kind: str, says: str
) -> None:
    assert missing_files(events, pod()) == (kind, says)
    phase = Phase.CREDENTIALS_MISSING if kind == "Secret" else Phase.FAILED
    assert trouble([pod()], events) == (phase, says, "")


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="nothing told"),
        pytest.param([event(NO_SECRET, name="guard-2")], id="of another pod"),
        pytest.param([event(NO_SECRET.replace('"keys"', '"tmp"'))], id="of a volume that is not asked for"),
        pytest.param([event("MountVolume.SetUp failed for volume \"keys\" : disk full")], id="another fault"),
        pytest.param([{"note": None, "regarding": None}], id="an event without words"),
    ],
)  # fmt: skip
def test_what_says_nothing_of_missing_objects_is_no_verdict(events: list[dict[str, Any]]) -> None:
    assert missing_files(events, pod()) is None
    assert trouble([pod()], events) == (Phase.PROGRESSING, "", "")


def test_a_pod_whose_files_came_is_no_longer_judged_by_its_old_events() -> None:
    ready = [SCHEDULED, {"type": "PodReadyToStartContainers", "status": "True"}]
    assert trouble([pod(conditions=ready)], [event(NO_SECRET)]) == (Phase.PROGRESSING, "", "")
