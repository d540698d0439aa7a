"""Every component as a process under load, and a real Prometheus that scrapes all of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from harness.otlp import Collector
from harness.processes import BEAMLINE, Process, eventually, free_port
from harness.world import World

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "observability" / "alerts.yaml"
BUILT_IN = {
    "mock-provider": "mock_provider",
    "normalize-text": "normalize_text",
    "pii-guard": "pii_guard",
    "mask-sensitive-data": "mask_sensitive_data",
}
STARTING_S = 120.0
"""Many interpreters at once, on a machine that does other things too."""
ADMIN_TOKEN = "observed-admin-token-0123456789"
GHOST = [
    {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "Extension",
        "metadata": {"name": "ghost"},
        "spec": {"type": "provider", "retry": 0, "circuitBreaker": {"minFailureRatio": 0.1}},
    },
    {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": "haunted"},
        "spec": {
            "match": {"models": ["ghost"]},
            "steps": [
                {
                    "action": "select_provider",
                    "providers": [{"extensionRef": {"name": "ghost"}}],
                    "fallback": [{"extensionRef": {"name": "mock-provider"}}],
                }
            ],
        },
    },
]
"""A provider that nobody runs, so that something fails and a breaker opens."""


class Observed:
    """``jobs``: component to the processes that Prometheus scrapes under that name."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.namespace = f"observed-{uuid4().hex[:10]}"
        cluster.kubectl("create", "namespace", self.namespace)
        self.world = World().start_infrastructure()
        self.collector = Collector()
        self.router = self.world.router(OTEL_EXPORTER_OTLP_ENDPOINT=self.collector.url)
        self.operator = self.world.operator(cluster.operator_kubeconfig(self.namespace), self.namespace)
        port = free_port()
        env = {"BEAMLINE_ADMIN_HTTP_PORT": str(port), "BEAMLINE_ADMIN_TOKEN": ADMIN_TOKEN}
        self.admin = self.world._process("admin", (*BEAMLINE, "admin"), env, port)
        self.jobs = {"router": [self.router], "operator": [self.operator], "admin": [self.admin]}
        self._stop = threading.Event()
        self._load = threading.Thread(target=self._ask, name="load")
        self._prometheus: subprocess.Popen[bytes] | None = None
        self._port = 0

    def start(self) -> Observed:
        for process in (self.router, self.operator, self.admin):
            process.start(wait=False)
        eventually(self.operator.ready, "the operator is ready", STARTING_S)
        quickstart = ROOT / "examples" / "quickstart"
        self.kubectl("apply", "-f", str(quickstart))
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(GHOST))
        self.jobs["extension"] = [self._extension(name, built_in) for name, built_in in BUILT_IN.items()]
        upstream = {"OPENAI_API_KEY": "sk-none", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
        for name, more in (("openai", upstream), ("response_cache", {})):
            env = {"BEAMLINE_EXTENSION_ID": name, "NATS_SUBJECT": f"beamline.ext.observed.{name}.v1", **more}
            self.jobs["extension"].append(self.world.extension(name, env))
            self.jobs["extension"][-1].start(wait=False)
        for process in self.jobs["extension"]:
            eventually(lambda process=process: self.text(process), f"metrics of {process.name}", STARTING_S)
        eventually(self.admin.ready, "the admin process is ready", STARTING_S)
        eventually(lambda: self._post({"prompt": "Hi"}) == 200, "the first answer", STARTING_S)
        self._load.start()
        return self

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> Any:
        return self.cluster.kubectl("-n", self.namespace, *arguments, input=stdin, check=check)

    def text(self, process: Process) -> str:
        """What ``process`` answers to a scrape."""
        with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=5) as reply:
            return str(reply.read().decode())

    def prometheus(self) -> Observed:
        """Starts Prometheus; returns when it has scraped everything a few times and evaluated its rules."""
        found = shutil.which("prometheus")
        assert found is not None
        self._port = free_port()
        scraped = [
            {
                "job_name": job,
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{process.port}"],
                        "labels": {"namespace": "n", "pod": process.name},
                    }
                    for process in processes
                ],
            }
            for job, processes in self.jobs.items()
        ]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": scraped,
        }
        folder = self.world.folder / "prometheus"
        folder.mkdir()
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        with (folder / "log").open("wb") as log:
            self._prometheus = subprocess.Popen(
                [
                    found,
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--enable-feature=exemplar-storage",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )
        targets = sum(len(processes) for processes in self.jobs.values())
        eventually(
            lambda: len(self.query("count_over_time(up[1m]) >= 4")) == targets, "four scrapes of everything"
        )
        eventually(lambda: self.query("beamline:slo_latency_bad:ratio_rate1h"), "the rules were evaluated")
        return self

    def api(self, path: str, **asked: str) -> Any:
        """The data of an answer of Prometheus' API; its error as the assertion's text."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return json.loads(reply.read())["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(error.read().decode()) from None

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        found: list[dict[str, Any]] = self.api("query", query=expr)["result"]
        return found

    def close(self) -> None:
        self._stop.set()
        if self._load.is_alive():
            self._load.join(30)
        if self._prometheus is not None:
            self._prometheus.terminate()
            self._prometheus.wait(30)
        self.kubectl("delete", "rp,ext", "--all", "--timeout=20s", check=False)
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)
        self.world.close()
        self.collector.stop()

    def _extension(self, name: str, built_in: str) -> Process:
        """The process that the Deployment of ``name`` describes."""

        def deployment() -> Any:
            found = self.kubectl("get", "deployment", name, "-o", "json", check=False)
            return json.loads(found.stdout) if found.returncode == 0 else None

        made: Any = eventually(deployment, f"deployment {name}")
        container = made["spec"]["template"]["spec"]["containers"][0]
        env = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        return self.world.extension(built_in, env, name=name).start(wait=False)

    def _ask(self) -> None:
        """A little of everything that users do, until the end."""
        while not self._stop.is_set():
            for body in (
                {"prompt": "Mail me at jane.doe@example.com", "tenant_id": "acme"},
                {"prompt": "pay with 4111 1111 1111 1111 please"},
                {"prompt": "boo", "model": "ghost"},
                {"prompt": "Hi", "policy": "nowhere"},
            ):
                self._post(body)
            self._post({"prompt": "Hi"}, **{"x-forwarded-for": "192.0.2.1"})
            headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
            self.world.http.get(f"http://127.0.0.1:{self.admin.port}/api/v1/extensions", headers=headers)
            time.sleep(0.05)

    def _post(self, body: dict[str, Any], **headers: str) -> int:
        return int(self.world.route(self.router, body, **headers).status_code)


def missing() -> str | None:
    """Why there is no Prometheus here."""
    if shutil.which("prometheus") is not None:
        return None
    return "no prometheus on PATH: `make test-tools` installs it (Debian's prometheus)"


IN_CI = bool(os.environ.get("CI"))
