"""Pods come and go while requests run: another image, more replicas, a rotated Secret, a killed pod."""

from __future__ import annotations

from e2e.rig.case import Case
from e2e.rig.kube import until
from e2e.rig.world import World


def _images(case: Case, name: str) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in case.pods(name)}


def _names(case: Case, name: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in case.pods(name)}


def _ready_pods(case: Case, name: str) -> int:
    listed = [pod["status"].get("containerStatuses", []) for pod in case.pods(name)]
    return sum(all(entry["ready"] for entry in statuses) and bool(statuses) for statuses in listed)


def test_another_image_is_rolled_out_without_a_lost_request(case: Case, world: World) -> None:
    case.apply(case.extension("echo"), case.policy(case.provider("echo")))
    case.ready()
    before = _names(case, "echo")
    with case.install.load(case.request()) as load:
        load.goes_on()
        case.patch("echo", {"spec": {"workload": {"image": world.settings.next_image}}})
        until("the new image runs", lambda: _images(case, "echo") == {world.settings.next_image})
        case.ready()
        load.goes_on()
        load.ends_without_loss()
    assert not before & _names(case, "echo")
    assert case.get("echo")["status"]["lastGood"]["image"] == world.settings.next_image


def _has(case: Case, replicas: int) -> None:
    until(f"{replicas} pods are ready", lambda: _ready_pods(case, "echo") == replicas)
    until("the status says so", lambda: case.get("echo")["status"].get("readyReplicas") == replicas)


def test_kubectl_scale_makes_pods_and_takes_them_away_without_a_lost_request(case: Case) -> None:
    case.apply(case.extension("echo"), case.policy(case.provider("echo")))
    case.ready()
    with case.install.load(case.request()) as load:
        for replicas in (3, 1):
            words = ["scale", f"ext/{case.named('echo')}", f"--replicas={replicas}", "-n", case.namespace]
            case.kube.kubectl(*words)
            _has(case, replicas)
            load.goes_on()
        load.ends_without_loss()


def test_a_rotated_secret_rolls_the_pods_that_read_it(case: Case) -> None:
    name = case.named("token")

    def secret(value: str) -> dict[str, object]:
        metadata = {"name": name, "namespace": case.namespace, "labels": {"beamline.io/roll": "true"}}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": value}}

    reads = {"env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "token"}}}]}
    case.apply(secret("first"), case.extension("echo", workload=reads), case.policy(case.provider("echo")))
    case.ready()
    before = _names(case, "echo")
    with case.install.load(case.request()) as load:
        load.goes_on()
        case.apply(secret("second"))
        until("other pods run", lambda: _ready_pods(case, "echo") == 1 and not before & _names(case, "echo"))
        (pod,) = _names(case, "echo")
        script = "import os; print(os.environ['TOKEN'])"
        said = case.kube.kubectl("exec", pod, "-n", case.namespace, "--", "python", "-c", script)
        assert said.strip() == "second"
        load.goes_on()
        load.ends_without_loss()


def test_a_killed_provider_pod_costs_no_request_where_another_is_there(case: Case) -> None:
    """The calls that the killed pod had taken are lost to it; the router's retries ask the other one."""
    spec = {"retry": 2, "timeoutMs": 800, "retryOnTimeout": True, "workload": {"replicas": 2}}
    case.apply(case.extension("echo", **spec), case.policy(case.provider("echo")))
    case.ready()
    victim = min(_names(case, "echo"))
    with case.install.load(case.request()) as load:
        load.goes_on()
        words = ["delete", "pod", victim, "-n", case.namespace, "--grace-period=0", "--force"]
        case.kube.kubectl(*words)
        until("another pod is ready", lambda: _ready_pods(case, "echo") == 2)
        load.goes_on()
        load.ends_without_loss()
    case.ready()
