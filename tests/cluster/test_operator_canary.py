"""Canaries on a real API server: real operators, a real router, real extension processes, real calls."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from adminaccount import forget, kubeconfig_of

from beamline_admin.rbac import rules
from harness.processes import BEAMLINE, Process, eventually, free_port
from harness.world import World

pytestmark = [pytest.mark.timeout(240)]

CANARY = {
    "steps": [{"weight": 40, "pauseSeconds": 1}, {"weight": 60, "pauseSeconds": 12}],
    "gates": {"minSamples": 10, "maxErrorRate": 0.2},
}


def extension(name: str, **spec: Any) -> dict[str, Any]:
    whole = {
        "type": "provider",
        "retry": 0,
        "config": {"mode": "fixed", "answer": name, "latency_ms": 0},
        **spec,
    }
    return {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "Extension",
        "metadata": {"name": name},
        "spec": whole,
    }


POLICY = {
    "apiVersion": "beamline.io/v1alpha1",
    "kind": "RoutingPolicy",
    "metadata": {"name": "default"},
    "spec": {
        "steps": [{"action": "select_provider", "providers": [{"extensionRef": {"name": "chat"}}]}],
    },
}


class Stage:
    """A base with its router, two operators, and somebody who keeps calling."""

    def __init__(self, cluster: Any, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.world = World().start_infrastructure()
        self.router = self.world.router().start()
        login = cluster.operator_kubeconfig(namespace)
        self.operators = [self.world.operator(login, namespace, f"operator-{n}") for n in (1, 2)]
        self._over = threading.Event()
        self._caller = threading.Thread(target=self._call)

    def start(self) -> None:
        self.operators[0].start()
        self.serve("chat")
        self.apply(POLICY, extension("chat"))
        eventually(lambda: self.route().status_code == 200, "the first answer")
        self._caller.start()

    def serve(self, name: str) -> Process:
        identifier = name.replace("-", "_")
        config = extension(name)["spec"]["config"]
        env = {
            "NATS_SUBJECT": f"beamline.provider.{identifier}.v1",
            "NATS_QUEUE_GROUP": identifier,
            "BEAMLINE_EXTENSION_ID": identifier,
            "BEAMLINE_EXTENSION_TYPE": "provider",
            "BEAMLINE_CONFIG": json.dumps(config),
        }
        return self.world.extension("mock_provider", env, name=name).start()

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        found = self.cluster.kubectl("-n", self.namespace, *arguments, input=stdin, check=check)
        return str(found.stdout)

    def apply(self, *documents: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def canary(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "ext", name, "-o", "json"))
        return dict(found.get("status", {}).get("canary", {}))

    def wait(self, name: str, **wanted: Any) -> dict[str, Any]:
        def there() -> Any:
            found = self.canary(name)
            return {field: found.get(field) for field in wanted} == wanted and found

        found = eventually(there, f"{name} {wanted}; it is {self.canary(name)}", seconds=60)
        assert isinstance(found, dict)
        return found

    def events(self, name: str) -> list[str]:
        """Reasons of the canary's events, in any order."""
        listed = json.loads(self.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
        return sorted(
            item["reason"]
            for item in listed
            if item["regarding"]["name"] == name and item["reason"].startswith("Canary")
        )

    def route(self) -> Any:
        return self.world.route(self.router, {"prompt": "hello"})

    def close(self) -> None:
        self._over.set()
        if self._caller.is_alive():
            self._caller.join(30)
        self.kubectl("delete", "rp,ext", "--all", "--timeout=20s", check=False)
        self.world.close()

    def _call(self) -> None:
        while not self._over.wait(0.03):
            self.route()


@pytest.fixture
def stage(cluster: Any, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for name, seconds in {"DURATION": "3", "RENEW": "2", "RETRY": "0.3"}.items():
        monkeypatch.setenv(f"BEAMLINE_LEASE_{name}_S", seconds)
    made = Stage(cluster, namespace)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_a_good_version_is_promoted_under_a_new_leader_and_a_bad_one_is_turned_back(stage: Stage) -> None:
    stage.serve("chat-v2")
    stage.apply(extension("chat-v2", version="2.0", versionOf="chat", canary=CANARY))
    before = stage.wait("chat-v2", step=2)
    stage.operators[1].start(wait=False)
    stage.operators[0].stop(signal.SIGKILL)
    promoted = stage.wait("chat-v2", state="Promoted", weight=100)
    assert promoted["since"] > before["since"]
    # The killed leader may have died between a status and its event: what is left is told once.
    eventually(lambda: {"CanaryStep", "CanaryPromoted"} <= set(stage.events("chat-v2")), "the events")
    assert stage.events("chat-v2").count("CanaryPromoted") == 1
    eventually(
        lambda: {stage.route().json()["output"] for _ in range(10)} == {"chat-v2"}, "all calls at chat-v2"
    )
    stage.serve("chat-v3")
    failing = {"mode": "fixed", "answer": "chat-v3", "latency_ms": 0, "error_rate": 1.0}
    stage.apply(extension("chat-v3", version="3.0", versionOf="chat", canary=CANARY, config=failing))
    turned = stage.wait("chat-v3", state="RolledBack", weight=0)
    assert "step 1 of 2" in turned["message"]
    assert "calls failed" in turned["message"] or "breaker" in turned["message"]
    eventually(lambda: "CanaryRolledBack" in stage.events("chat-v3"), "the event of the roll-back")
    eventually(
        lambda: {stage.route().json().get("output") for _ in range(10)} == {"chat-v2"}, "chat-v2 again"
    )


SLOW = {"steps": [{"weight": 10, "pauseSeconds": 600}], "gates": {"minSamples": 1, "maxErrorRate": 1}}


def test_live_canaries_are_promoted_and_aborted_through_the_admin_api(
    stage: Stage, rest: Any, tmp_path: Path
) -> None:
    """By the process as it runs in a cluster, with its own rights alone."""
    port, token = free_port(), "the-token-of-these-tests"
    env = {
        "BEAMLINE_ADMIN_HTTP_PORT": str(port),
        "BEAMLINE_ADMIN_TOKEN": token,
        "BEAMLINE_ADMIN_CLUSTER": "true",
        "BEAMLINE_ADMIN_NAMESPACES": stage.namespace,
        "KUBECONFIG": kubeconfig_of(rest, stage.cluster, stage.namespace, rules(), tmp_path),
        **stage.world.common_env,
    }
    admin = Process("admin", (*BEAMLINE, "admin"), env, stage.world.folder / "admin.log", port)
    stage.world.processes.append(admin)
    headers = {"authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}/api/v1", headers=headers, timeout=60) as api:
        try:
            admin.start()
            wait = {"wait": "programmed", "timeout_s": 50}
            for name, word, state, weight in (
                ("chat-v2", "abort", "Aborted", 0), ("chat-v3", "promote", "Promoted", 100)
            ):  # fmt: skip
                stage.serve(name)
                stage.apply(extension(name, version=name[-1], versionOf="chat", canary=SLOW))
                identifier = name.replace("-", "_")
                stage.wait(name, state="Progressing", step=1)
                listed = {one["id"]: one for one in api.get("/canaries").json()["canaries"]}
                assert (listed[identifier]["phase"], listed[identifier]["weight"]) == ("Progressing", 10)
                assert listed[identifier]["extension"] == "chat"
                done = api.post(f"/canaries/{identifier}/{word}", params=wait)
                assert (done.status_code, done.json()["progress"]["state"]) == (200, "programmed"), done.text
                found = stage.wait(name, state=state, weight=weight)
                assert found[word] == done.headers["x-request-id"]
                noted = api.get("/audit", params={"q": done.headers["x-request-id"]}).json()["items"]
                assert [(row["object_id"], row["changed_by"], row["request_id"]) for row in noted] == [
                    (identifier, "local (beamline-admin)", done.headers["x-request-id"])
                ]
                assert noted[0]["changes"]["canary.state"] == {"from": "Progressing", "to": state}
            stage.kubectl("annotate", "ext", "chat-v3", "beamline.io/promote=again", "--overwrite")
            (row,) = eventually(
                lambda: api.get("/audit", params={"q": '"again"'}).json()["items"], "who annotated by hand"
            )
            assert (row["changed_by"], row["request_id"]) == ("kubectl-annotate", "")
            eventually(
                lambda: {stage.route().json().get("output") for _ in range(10)} == {"chat-v3"},
                "all at chat-v3",
            )
            assert api.post("/canaries/chat/promote").status_code == 404, "the base is no canary"
        finally:
            forget(rest, stage.namespace)
