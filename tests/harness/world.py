"""The whole product on one machine: PostgreSQL, NATS, migrations, operator, routers and extensions, all real
processes.

Pods do not run on a control plane without nodes, so the test starts an Extension's process itself, with the
very environment that its Deployment carries.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPostgres

from .processes import BEAMLINE, Process, free_port


class World:
    """Starts parts on demand and stops all of them in ``close``, whatever happened in between."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="beamline-world-"))
        self.postgres = LocalPostgres(
            self.folder / "pg" / "data", settings={"fsync": "off", "max_connections": "100"}
        )
        self.nats = LocalNats()
        self.processes: list[Process] = []
        self.http = httpx2.Client(timeout=30)

    def start_infrastructure(self) -> World:
        (self.folder / "pg").mkdir()
        self.postgres.start()
        self.nats.start()
        with_database = [*BEAMLINE, "migrate", "--database-url", self.postgres.url()]
        done = subprocess.run(with_database, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return self

    @property
    def common_env(self) -> dict[str, str]:
        return {"BEAMLINE_DATABASE_URL": self.postgres.url(), "NATS_URL": self.nats.url, "LOG_LEVEL": "info"}

    def _process(self, name: str, command: tuple[str, ...], env: Mapping[str, str], port: int) -> Process:
        process = Process(name, command, {**self.common_env, **env}, self.folder / f"{name}.log", port)
        self.processes.append(process)
        return process

    def operator(self, kubeconfig: Path | str, namespace: str, name: str = "operator") -> Process:
        port = free_port()
        env = {"KUBECONFIG": str(kubeconfig), "BEAMLINE_NAMESPACES": namespace, "METRICS_PORT": str(port)}
        return self._process(name, (*BEAMLINE, "operator"), env, port)

    def router(self, name: str = "router", **env: str) -> Process:
        port = free_port()
        return self._process(name, (*BEAMLINE, "router"), {"BEAMLINE_HTTP_PORT": str(port), **env}, port)

    def extension(self, built_in: str, env: Mapping[str, str], name: str | None = None) -> Process:
        """``built_in`` as a process, with the environment of its Deployment."""
        port = free_port()
        command = (*BEAMLINE, "extension", "run", built_in)
        return self._process(name or built_in, command, {**env, "METRICS_PORT": str(port)}, port)

    def script(self, name: str, path: Path, env: Mapping[str, str]) -> Process:
        """A Python file of the test as an extension process."""
        port = free_port()
        return self._process(name, (sys.executable, str(path)), {**env, "METRICS_PORT": str(port)}, port)

    def route(self, router: Process, body: Mapping[str, Any], **headers: str) -> httpx2.Response:
        """``POST /v1/route``."""
        return self.http.post(f"http://127.0.0.1:{router.port}/v1/route", json=dict(body), headers=headers)

    def close(self) -> None:
        self.http.close()
        failures = []
        for process in reversed(self.processes):
            try:
                process.stop()
            except AssertionError as error:
                failures.append(str(error))
        self.nats.thaw() if self.nats.pid else None
        self.nats.stop()
        self.postgres.stop()
        assert not failures, failures
