"""Clients in pods: a prompt asked through a router's Service, and a load that counts what was lost.

They run in a namespace of their own, under Pod Security "restricted", from the image under test, so they take
the same way as any application of the cluster: DNS, Service, NetworkPolicy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from .kube import CommandError, Kube, Object, until

SCRIPT = Path(__file__).resolve().parents[1] / "pods" / "traffic.py"
PYTHON = "/opt/beamline/bin/python"
MIXED = {"keep": 4, "fresh": 2, "nats": 2}
"""Eight workers, at most one request each."""


class Clients:
    """The namespace of the clients, with one pod that waits to be asked."""

    def __init__(self, kube: Kube, image: str) -> None:
        self._kube = kube
        self._image = image
        self.namespace = f"e2e-clients-{uuid4().hex[:6]}"

    def start(self) -> None:
        where = {"namespace": self.namespace}
        self._kube.apply(
            namespace_object(self.namespace),
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "traffic", **where},
                "data": {"traffic.py": SCRIPT.read_text()},
            },
            self._pod("client", ["-c", "import signal; signal.pause()"], {}),
        )
        self._kube.wait_for("condition=Ready", "pod/client", self.namespace)

    def stop(self) -> None:
        self._kube.kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")

    def ask(
        self, url: str, request: Mapping[str, Any] | str, *, key: str = "", door: str = "http"
    ) -> tuple[int, Any]:
        """One request by HTTP or NATS; returns (status, body). Over NATS an error counts as 500."""
        text = request if isinstance(request, str) else json.dumps(request)
        words = [PYTHON, "/e2e/traffic.py", "ask", door, url, *([key] if key else [])]
        said = self._kube.kubectl("exec", "-i", "client", "-n", self.namespace, "--", *words, stdin=text)
        answer = json.loads(said)
        return answer["status"], answer["body"]

    def runs(self, *words: str, stdin: str | None = None) -> str:
        """A command in the client's pod; returns its output."""
        return self._kube.kubectl("exec", "-i", "client", "-n", self.namespace, "--", *words, stdin=stdin)

    @contextmanager
    def load(
        self,
        *,
        http: str,
        nats: str,
        request: Mapping[str, Any],
        key: str = "",
        workers: Mapping[str, int] = MIXED,
        pause_s: float = 0.1,
    ) -> Iterator[Load]:
        """Requests from now on until the block ends; see :class:`Load`."""
        name = f"load-{uuid4().hex[:6]}"
        plan = {
            "http": http,
            "nats": nats,
            "key": key,
            "request": dict(request),
            "workers": dict(workers),
            "pause": pause_s,
        }
        self._kube.apply(self._pod(name, ["/e2e/traffic.py", "load"], {"PLAN": json.dumps(plan)}))
        load = Load(self._kube, self.namespace, name)
        try:
            load.goes_on(len(workers))
            yield load
        finally:
            self._kube.kubectl(
                "delete", "pod", name, "-n", self.namespace, "--ignore-not-found", "--wait=false"
            )

    def _pod(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace, "labels": {"app": name}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "client",
                        "image": self._image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": [PYTHON, *arguments],
                        "env": [{"name": key, "value": value} for key, value in environment.items()],
                        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "volumeMounts": [
                            {"name": "traffic", "mountPath": "/e2e"},
                            {"name": "tmp", "mountPath": "/tmp"},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "traffic", "configMap": {"name": "traffic"}},
                    {"name": "tmp", "emptyDir": {}},
                ],
            },
        }


class Load:
    """A load under way."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name

    def counts(self) -> dict[str, Any]:
        """``sent``, ``ok``, ``lost``, ``failures``, ``providers`` and ``doors`` (answers by either), as of a
        second ago at most.
        """
        try:
            said = self._kube.kubectl("logs", self._name, "-n", self._namespace, "--tail=200")
        except CommandError:  # the container is being made
            return {}
        counts = [line for line in said.splitlines() if line.startswith("{")]  # nats-py speaks up in between
        found: dict[str, Any] = json.loads(counts[-1]) if counts else {}
        return found

    def goes_on(self, many: int = 40, *, timeout_s: float = 60) -> None:
        """Waits until so many more requests are answered."""
        before = self.counts().get("ok", 0)
        until(
            f"{many} more requests are answered (from {before})",
            lambda: self.counts().get("ok", 0) >= before + many,
            timeout_s=timeout_s,
        )

    def end(self) -> dict[str, Any]:
        """Stops it, lets what is under way be answered, and returns the counts."""
        words = [PYTHON, "-c", "open('/tmp/stop', 'w')"]
        self._kube.kubectl("exec", self._name, "-n", self._namespace, "--", *words)
        until("the load has ended", lambda: self.counts().get("done"), timeout_s=45)
        return self.counts()

    def ends_without_loss(self, *, at_least: int = 100) -> dict[str, Any]:
        """The same, where every request must have been answered well; AssertionError with the losses."""
        counts = self.end()
        lost = f"{counts['lost']} of {counts['sent']} requests were lost: {counts['failures']}"
        assert counts["lost"] == 0, lost
        assert counts["sent"] == counts["ok"]
        assert counts["ok"] >= at_least, f"only {counts['ok']} requests were sent, which proves little"
        return counts


def namespace_object(name: str) -> Object:
    """A namespace under Pod Security "restricted": a pod that asks for more is refused there."""
    enforced = {"pod-security.kubernetes.io/enforce": "restricted", "beamline.io/e2e": "true"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": enforced}}
