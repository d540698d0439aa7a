"""What is applied to a cluster for a workload, and how a Deployment's state is put into words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from beamline_contract.workload import Workload
from beamline_sdk.deployment.manifests import manifests, pod_hash
from beamline_sdk.deployment.pods import phase_of
from beamline_sdk.deployment.port import DeploymentRequest, Phase


def request(**workload: Any) -> DeploymentRequest:
    return DeploymentRequest(
        namespace="ns",
        name="guard",
        owner_uid="uid-1",
        generation=1,
        workload=Workload.model_validate({"image": "x:1", **workload}),
        replicas=1,
        env={"NATS_URL": "nats://nats:4333", "BEAMLINE_CONFIG": "{}", "NATS_QUEUE_GROUP": "guard"},
        hash="abc",
        labels={"beamline.io/extension-id": "guard"},
    )


def made(asked: DeploymentRequest, kind: str) -> dict[str, Any]:
    return next(manifest for manifest in manifests(asked) if manifest["kind"] == kind)


def container(asked: DeploymentRequest) -> dict[str, Any]:
    found: dict[str, Any] = made(asked, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


def test_a_pod_is_hardened_and_has_no_token() -> None:
    pod = made(request(), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert made(request(), "ServiceAccount")["automountServiceAccountToken"] is False


def test_traffic_comes_in_to_metrics_and_goes_out_to_dns_nats_and_https() -> None:
    policy = made(request(), "NetworkPolicy")["spec"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [9090]
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53, 4333, 443]


def test_everything_is_owned_unless_it_is_released() -> None:
    assert all(m["metadata"]["ownerReferences"][0]["uid"] == "uid-1" for m in manifests(request()))
    released = manifests(replace(request(), owner_uid=""))
    assert not any("ownerReferences" in manifest["metadata"] for manifest in released)


def test_the_authors_variables_stand_beside_ours_and_secrets_stay_references() -> None:
    env = [
        {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "openai", "key": "key"}}},
        {"name": "NATS_URL", "value": "nats://other:4222"},
    ]
    found = {entry["name"]: entry for entry in container(request(env=env))["env"]}
    assert found["OPENAI_API_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "openai"
    assert found["NATS_URL"]["value"] == "nats://other:4222"
    assert found["NATS_QUEUE_GROUP"]["value"] == "guard"


def test_probes_can_be_moved_and_turned_off() -> None:
    assert container(request())["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 9090}
    moved = container(request(probes={"readinessPath": "/up", "port": 8080}))
    assert moved["readinessProbe"]["httpGet"] == {"path": "/up", "port": 8080}
    assert "livenessProbe" not in container(request(probes={"enabled": False}))


@pytest.mark.parametrize(
    ("change", "rolls"),
    [
        pytest.param({"replicas": 5}, False, id="replicas"),
        pytest.param({"env": {"NATS_URL": "nats://nats:4333", "BEAMLINE_CONFIG": '{"a":1}',
                              "NATS_QUEUE_GROUP": "guard"}}, False, id="start configuration"),
        pytest.param({"env": {"NATS_URL": "nats://new:4222"}}, True, id="another NATS"),
        pytest.param({"workload": Workload(image="x:2")}, True, id="another image"),
    ],
)  # fmt: skip
def test_what_rolls_the_pods(change: dict[str, Any], rolls: bool) -> None:
    assert (pod_hash(replace(request(), **change)) != pod_hash(request())) is rolls


def deployment(replicas: int = 1, ready: int = 0, **status: Any) -> dict[str, Any]:
    counts = {
        "replicas": replicas,
        "updatedReplicas": replicas,
        "availableReplicas": ready,
        "readyReplicas": ready,
    }
    return {
        "metadata": {"generation": 2},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": 2, **counts, **status},
    }


def pod(reason: str, /, **last: Any) -> dict[str, Any]:
    message = 'secret "keys" not found' if reason == "CreateContainerConfigError" else "back-off 40s"
    state = {"image": "x:1", "state": {"waiting": {"reason": reason, "message": message}}}
    return {"status": {"containerStatuses": [{**state, "lastState": {"terminated": last} if last else {}}]}}


def unstarted(message: str) -> dict[str, Any]:
    """A pod with variables from a Secret and a ConfigMap, of which the kubelet says ``message``."""

    def variable(name: str, kind: str, source: str, key: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "valueFrom": {kind: {"name": source, "key": key, **more}}}

    env = [
        variable("OPENAI_API_KEY", "secretKeyRef", "keys", "API_KEY"),
        variable("OPENAI_ORG", "secretKeyRef", "keys", "ORG"),
        variable("TRACE", "secretKeyRef", "keys", "trace", optional=True),
        variable("OTHER", "secretKeyRef", "other", "x"),
        variable("LEVEL", "configMapKeyRef", "settings", "level"),
    ]
    waiting = {"reason": "CreateContainerConfigError", "message": message}
    return {
        "spec": {"containers": [{"env": env}]},
        "status": {"containerStatuses": [{"image": "x:1", "state": {"waiting": waiting}}]},
    }


def restarted(times: int, **last: Any) -> dict[str, Any]:
    """A pod whose container runs at the moment."""
    now = {"image": "x:1", "ready": False, "restartCount": times, "state": {"running": {}}}
    return {"status": {"containerStatuses": [{**now, "lastState": {"terminated": last}}]}}


UNSCHEDULABLE = {
    "status": {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "no memory"}]}
}
FAILED_CREATE = [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]
DEADLINE = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]


@pytest.mark.parametrize(
    ("found", "pods", "phase", "says"),
    [
        pytest.param(deployment(ready=1), [], Phase.READY, "", id="all ready"),
        pytest.param(deployment(0), [], Phase.SCALED_TO_ZERO, "", id="none wanted"),
        pytest.param(deployment(0, observedGeneration=1), [], Phase.PROGRESSING, "stopping", id="stopping"),
        pytest.param(deployment(ready=1, observedGeneration=1), [], Phase.PROGRESSING, "", id="not seen yet"),
        pytest.param(deployment(), [], Phase.PROGRESSING, "", id="starting"),
        pytest.param(deployment(), [UNSCHEDULABLE], Phase.PROGRESSING, "no memory", id="no node"),
        pytest.param(deployment(), [pod("ErrImagePull")], Phase.FAILED, "x:1 can't be pulled", id="image"),
        pytest.param(
            deployment(), [pod("ImagePullBackOff")], Phase.FAILED, "x:1 can't be pulled", id="image again"
        ),
        pytest.param(
            deployment(), [pod("CrashLoopBackOff", exitCode=3, message="boom")], Phase.FAILED,
            "exits again and again (code 3): boom", id="crash loop",
        ),
        pytest.param(deployment(conditions=FAILED_CREATE), [], Phase.FAILED, "exceeded quota", id="quota"),
        pytest.param(
            deployment(), [restarted(3, exitCode=1, message="boom")], Phase.FAILED,
            "exits again and again (code 1): boom", id="crash loop, in the moment in which it runs",
        ),
        pytest.param(
            deployment(), [restarted(1, exitCode=1)], Phase.PROGRESSING, "", id="one restart is no loop"
        ),
        pytest.param(
            deployment(), [pod("CrashLoopBackOff", exitCode=137, reason="OOMKilled")], Phase.FAILED,
            "raise that", id="out of memory",
        ),
        pytest.param(
            deployment(), [pod("CreateContainerConfigError")], Phase.CREDENTIALS_MISSING,
            "can't be started: secret \"keys\" not found. Create the Secret keys, or make the reference in "
            "spec.workload.envFrom optional.", id="a Secret of envFrom",
        ),
        pytest.param(
            deployment(), [unstarted('secret "keys" not found')], Phase.CREDENTIALS_MISSING,
            "Create the Secret keys with the keys API_KEY (for OPENAI_API_KEY), ORG (for OPENAI_ORG), or",
            id="a Secret of variables, without those that are optional",
        ),
        pytest.param(
            deployment(), [unstarted("couldn't find key ORG in Secret ns/keys")], Phase.CREDENTIALS_MISSING,
            "Put the key ORG (for OPENAI_ORG) into the Secret keys, or make the reference in "
            "spec.workload.env optional.", id="a key of a Secret",
        ),
        pytest.param(
            deployment(), [unstarted("couldn't find key level in ConfigMap ns/settings")], Phase.FAILED,
            "Put the key level (for LEVEL) into the ConfigMap settings, or", id="a key of a ConfigMap",
        ),
        pytest.param(
            deployment(), [unstarted('configmap "settings" not found')], Phase.FAILED,
            "Create the ConfigMap settings with the key level (for LEVEL), or", id="a ConfigMap",
        ),
        pytest.param(
            deployment(), [unstarted("container has runAsNonRoot and image will run as root")], Phase.FAILED,
            "can't be started: container has runAsNonRoot", id="an image that runs as root",
        ),
        pytest.param(
            deployment(conditions=DEADLINE), [], Phase.FAILED, "no progress within 600 s", id="deadline"
        ),
        pytest.param(
            deployment(conditions=DEADLINE), [UNSCHEDULABLE], Phase.FAILED, "no memory", id="and no node"
        ),
        pytest.param(
            deployment(conditions=DEADLINE, observedGeneration=1), [], Phase.PROGRESSING, "",
            id="the deadline of the spec before",
        ),
        pytest.param(
            deployment(conditions=FAILED_CREATE, observedGeneration=1), [], Phase.PROGRESSING, "",
            id="the quota of the spec before",
        ),
    ],
)  # fmt: skip
def test_a_deployment_in_words(found: dict[str, Any], pods: list[Any], phase: Phase, says: str) -> None:
    assert phase_of(found, pods)[0] is phase
    assert says in phase_of(found, pods)[1]
    assert "40s" not in phase_of(found, pods)[1], "what changes all the time is left out"
