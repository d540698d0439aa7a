"""NATS and PostgreSQL restart, with and without what they held: routers serve on, and all converges."""

from __future__ import annotations

import time

from e2e.rig.case import Case
from e2e.rig.install import Installation
from e2e.rig.kube import Kube, until
from e2e.rig.world import World


def _restarts(kube: Kube, install: Installation, component: str) -> int:
    pods = kube.pods(install.namespace, install.component(component))
    return sum(
        status["restartCount"] for pod in pods for status in pod["status"].get("containerStatuses", [])
    )


def _change_is_served(case: Case, answer: str) -> None:
    """A change of an object reaches the routers, so every part of the way works."""
    case.patch("fixed", {"spec": {"config": {"mode": "fixed", "answer": answer}}})
    case.ready()
    request = case.request(model="fixed-model")
    until(f"routers answer {answer!r}", lambda: case.install.ask(request)[1].get("output") == answer)


def _prepared(case: Case) -> None:
    case.apply(
        case.extension("echo"),
        case.policy(case.provider("echo")),
        case.extension("fixed", config={"mode": "fixed", "answer": "one"}),
        case.policy(case.provider("fixed"), name="fixed-model"),
    )
    case.ready()


def test_postgresql_restarts_with_its_data_and_no_request_is_lost(case: Case) -> None:
    """As after a restart of its node: the container ends at once, and comes back with the same volume."""
    _prepared(case)
    install, kube = case.install, case.kube
    pod = f"{install.name}-postgres-0"
    before, routers = _restarts(kube, install, "postgres"), _restarts(kube, install, "router")
    with install.load(case.request()) as load:
        load.goes_on()
        # SIGQUIT ends PostgreSQL at once, without a checkpoint: what a node that fails does to it.
        kube.command("kubectl", "exec", pod, "-n", install.namespace, "--", "sh", "-c", "kill -QUIT 1")
        until("its container was restarted", lambda: _restarts(kube, install, "postgres") > before)
        kube.wait_for("condition=Ready", f"pod/{pod}", install.namespace)
        load.goes_on()
        _change_is_served(case, "after the restart")
        load.ends_without_loss()
    assert _restarts(kube, install, "router") == routers


def test_postgresql_comes_back_empty_and_the_objects_fill_it_again(case: Case, world: World) -> None:
    """The documented way (docs/install/backup.md): a new migration, and the operator compares anew."""
    _prepared(case)
    install, kube = case.install, case.kube
    pod = f"{install.name}-postgres-0"
    routers = _restarts(kube, install, "router")
    with install.load(case.request()) as load:
        load.goes_on()
        kube.kubectl("delete", "pod", pod, "-n", install.namespace)
        kube.kubectl("delete", "job", "-l", install.component("migration"), "-n", install.namespace)
        install.install(world.common_values())
        kube.kubectl("rollout", "restart", f"deployment/{install.name}-operator", "-n", install.namespace)
        kube.rolled_out(f"deployment/{install.name}-operator", install.namespace)
        load.goes_on()
        _change_is_served(case, "after the loss")
        load.ends_without_loss()
    assert _restarts(kube, install, "router") == routers


def test_nats_restarts_and_requests_flow_again_without_any_other_restart(case: Case) -> None:
    """Without NATS there is no way to the extensions: requests fail at once, and only while it is away."""
    _prepared(case)
    install, kube = case.install, case.kube
    others = {name: _restarts(kube, install, name) for name in ("router", "operator")}
    with install.load(case.request()) as load:
        load.goes_on()
        began = time.time()
        kube.kubectl("delete", "pod", "-l", install.component("nats"), "-n", install.namespace)
        kube.rolled_out(f"deployment/{install.name}-nats", install.namespace)
        load.goes_on(100)
        back = time.time()
        _change_is_served(case, "after the restart")
        load.goes_on(100)
        counts = load.end()
    assert counts["ok"] > 200
    late = [failure for failure in counts["failures"] if not began - 1 <= failure["at"] <= back + 1]
    assert not late, late
    assert {name: _restarts(kube, install, name) for name in others} == others
