"""Routers come and go under load: on all doors no request is lost."""

from __future__ import annotations

from e2e.rig.case import Case
from e2e.rig.kube import until


def test_routers_are_rolled_under_load_and_no_request_is_lost(case: Case) -> None:
    case.apply(case.extension("echo"), case.policy(case.provider("echo")))
    case.ready()
    install = case.install
    router = f"deployment/{install.name}-router"
    before = {
        pod["metadata"]["name"] for pod in case.kube.pods(install.namespace, install.component("router"))
    }
    with install.load(case.request(), pause_s=0.02) as load:
        load.goes_on()
        case.kube.kubectl("rollout", "restart", router, "-n", install.namespace)
        case.kube.rolled_out(router, install.namespace)

        def gone() -> bool:
            pods = case.kube.items("pods", install.namespace, install.component("router"))
            return not before & {pod["metadata"]["name"] for pod in pods}

        until("the old routers have ended", gone)
        load.goes_on()
        counts = load.ends_without_loss(at_least=500)
    assert set(counts["doors"]) == {"keep", "fresh", "nats"}


def test_a_router_pod_that_is_evicted_costs_no_request(case: Case) -> None:
    case.apply(case.extension("echo"), case.policy(case.provider("echo")))
    case.ready()
    install = case.install
    victim = case.kube.pods(install.namespace, install.component("router"))[0]["metadata"]["name"]
    with install.load(case.request(), pause_s=0.02) as load:
        load.goes_on()
        case.kube.kubectl("delete", "pod", victim, "-n", install.namespace)  # waits until it is gone
        case.kube.rolled_out(f"deployment/{install.name}-router", install.namespace)
        load.goes_on()
        load.ends_without_loss(at_least=300)
