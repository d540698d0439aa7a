"""``beamline logs`` of a cluster's pods, against an API server that a test scripts: the test clusters have no
kubelet, so nobody there could answer for a log.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from harness.processes import BEAMLINE


class Pods(ThreadingHTTPServer):
    """Pods with logs; ``asked`` are the queries of logs. A pod without a log has not started yet."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, list[str]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.gone = threading.Event()

    def add(self, name: str, *lines: str, component: str = "", started: bool = True) -> None:
        labels = {"app.kubernetes.io/name": "pii-guard", "beamline.io/extension-id": "pii_guard"}
        if component:
            labels = {"app.kubernetes.io/component": component}
        meta = {"name": name, "namespace": "models", "uid": name, "labels": labels}
        self.pods.append({"metadata": meta, "spec": {"containers": [{"name": "main"}]}})
        if started:
            self.logs[name] = list(lines)

    def deployments(self) -> list[dict[str, Any]]:
        labels = {"app.kubernetes.io/component": "router"}
        template = {"spec": {"containers": [{"name": "router", "args": ["router"]}]}}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        return [
            {"metadata": {"name": "beamline-router", "namespace": "models", "labels": labels}, "spec": spec}
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Pods

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(path.query).items()}
        if path.path.endswith("/log"):
            self._log(path.path.split("/")[-2], query)
            return
        items = self.server.deployments() if path.path.endswith("/deployments") else self.server.pods
        wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if "=" in part)
        wanted.pop("app.kubernetes.io/part-of", None)
        found = [item for item in items if wanted.items() <= item["metadata"]["labels"].items()]
        self._say(200, json.dumps({"kind": "List", "items": found}))

    def _log(self, pod: str, query: dict[str, str]) -> None:
        self.server.asked.append((pod, query))
        if pod not in self.server.logs:
            self._say(400, json.dumps({"reason": "BadRequest", "message": "container is waiting to start"}))
            return
        self.send_response(200)
        self.end_headers()
        sent = max(0, len(self.server.logs[pod]) - int(query.get("tailLines", 1000)))
        while True:
            for line in self.server.logs[pod][sent:]:
                self.wfile.write(f"{line}\n".encode())
                self.wfile.flush()
                sent += 1
            if query["follow"] == "false" or self.server.gone.wait(0.05):
                return

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def pods() -> Iterator[Pods]:
    server = Pods()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.gone.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def kubeconfig(pods: Pods, tmp_path: Path) -> Path:
    url = f"http://127.0.0.1:{pods.server_address[1]}"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }))  # fmt: skip
    return path


def logs(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*BEAMLINE, "logs", *arguments, "--kubeconfig", str(kubeconfig)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_one_pod_is_shown_as_it_wrote(pods: Pods, kubeconfig: Path) -> None:
    pods.add("guard-1", "one", "two")
    done = logs(kubeconfig, "pii-guard", "-n", "models", "--tail", "1", "--since", "1h30m")
    assert (done.returncode, done.stdout) == (0, "two\n"), done.stderr
    assert pods.asked == [
        ("guard-1", {"container": "main", "follow": "false", "tailLines": "1", "sinceSeconds": "5400"})
    ]


def test_of_several_pods_each_line_names_its_own_and_one_without_a_log_is_told(
    pods: Pods, kubeconfig: Path
) -> None:
    pods.add("router-1", "a", component="router")
    pods.add("router-2", "b", component="router")
    pods.add("router-3", component="router", started=False)
    pods.add("guard-1", "not of a router")
    done = logs(kubeconfig, "router")
    assert done.stdout.splitlines() == ["[models/router-1] a", "[models/router-2] b"]
    assert "models/router-3: container is waiting to start" in done.stderr
    assert done.returncode == 0


def test_nobody_to_show_is_one_sentence(pods: Pods, kubeconfig: Path) -> None:
    done = logs(kubeconfig, "nobody", "-n", "models")
    assert done.returncode == 1
    assert "nothing runs for an Extension 'nobody' in namespace models" in done.stderr
    pods.add("guard-1", started=False)
    done = logs(kubeconfig, "pii-guard", "-c", "other", "-p")
    assert done.returncode == 1
    assert "none of 1 pods has a log" in done.stderr
    assert pods.asked[-1][1] == {"container": "other", "follow": "false", "previous": "true"}


def test_followed_pods_go_on_and_new_ones_join(pods: Pods, kubeconfig: Path, tmp_path: Path) -> None:
    pods.add("guard-1", "old", "last")
    output = tmp_path / "out.txt"
    with output.open("w") as file:
        command = [*BEAMLINE, "logs", "pii-guard", "-f", "--tail", "1", "--kubeconfig", str(kubeconfig)]
        follower = subprocess.Popen(command, stdout=file, stderr=file)

    def until(line: str) -> None:
        give_up = time.monotonic() + 30
        while line not in output.read_text().splitlines() and time.monotonic() < give_up:
            time.sleep(0.05)

    try:
        until("[models/guard-1] last")
        pods.logs["guard-1"].append("more")
        pods.add("guard-2", started=False)
        until("[models/guard-1] more")
        pods.logs["guard-2"] = ["its first", "its second"]
        until("[models/guard-2] its second")
    finally:
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130
    assert output.read_text().splitlines() == [
        "[models/guard-1] last",
        "[models/guard-1] more",
        "[models/guard-2] its first",
        "[models/guard-2] its second",
    ]
