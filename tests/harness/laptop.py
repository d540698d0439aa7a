"""``beamline up`` as a process of a test: started, asked over HTTP, edited, stopped, looked for afterwards.

"No process is left" is checked against /proc: nothing may run any more whose environment, command line or
working folder names the folder of the run.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60.0
EDIT_S = 20.0
"""Generous: the suite shares its machine. How long an edit takes is printed by ``up`` itself."""


class Up:
    """One ``beamline up``; ``lines`` is what it has said so far."""

    def __init__(
        self,
        tmp: Path,
        *options: str,
        folder: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder or tmp / "manifests"
        self.state = tmp / "state"
        self.output = tmp / "output.txt"
        if not self.folder.exists():
            shutil.copytree(ROOT / "examples" / "quickstart", self.folder)
        self.environ = {**os.environ, "XDG_STATE_HOME": str(tmp / "xdg"), "NO_COLOR": "1", **(environ or {})}
        self.environ.pop("BEAMLINE_STATE", None)
        command = [sys.executable, "-m", "beamline_cli", "up", str(self.folder), "--port", "0"]
        if "--ephemeral" not in options:
            command += ["--state", str(self.state)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*command, *options],
                stdout=output,
                stderr=output,
                env=self.environ,
                start_new_session=True,
                cwd=tmp,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def url(self) -> str:
        found = re.search(r"ready on (http://\S+)", self.said)
        assert found is not None, self.said
        return found.group(1)

    def until_said(self, pattern: str, seconds: float = EDIT_S, *, after: int = 0) -> re.Match[str]:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if found := re.search(pattern, self.said[after:]):
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} was not said:\n{self.said}")

    def ready(self) -> Up:
        self.until_said("Ctrl-C stops everything", READY_S)
        return self

    def route(self, prompt: str) -> tuple[int, dict[str, Any]]:
        address = self.url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            connection.request(
                "POST", "/v1/route", json.dumps({"prompt": prompt}), {"content-type": "application/json"}
            )
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def until_routed(self, prompt: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        give_up = time.monotonic() + EDIT_S
        answer: dict[str, Any] = {}
        while time.monotonic() < give_up:
            _, answer = self.route(prompt)
            if holds(answer):
                return answer
            time.sleep(0.05)
        raise AssertionError(f"{answer}\n{self.said}")

    def edit(self, name: str, old: str, new: str) -> int:
        """Edits a file; returns the position in what was said so far."""
        path = self.folder / name
        text = path.read_text()
        assert old in text
        position = len(self.said)
        path.write_text(text.replace(old, new))
        return position

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "beamline_cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environ, check=False)

    def provider_calls(self) -> int:
        """How often the mock provider was asked, by its own metrics."""
        (line,) = [line for line in self.said.splitlines() if " beamline.provider.mock.v1 " in line]
        pid = int(line.split("beamline.provider.mock.v1")[1].split()[0])
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        (port,) = [entry.split(b"=")[1].decode() for entry in environ if entry.startswith(b"METRICS_PORT=")]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        try:
            connection.request("GET", "/metrics")
            metrics = connection.getresponse().read().decode()
        finally:
            connection.close()
        counts = re.findall(r"^beamline_runtime_requests_total\{[^}]*\} ([0-9.]+)$", metrics, re.MULTILINE)
        return int(sum(map(float, counts)))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def left_behind(self) -> list[str]:
        """Command lines of processes that still have to do with this run, after a moment to end."""
        give_up = time.monotonic() + 20
        while (left := list(self._processes())) and time.monotonic() < give_up:
            time.sleep(0.05)
        return left

    def _processes(self) -> Iterator[str]:
        marks = (str(self.state).encode(), str(self.folder).encode(), str(self.output.parent).encode())
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                told = command + (entry / "environ").read_bytes()
                cwd = os.fsencode((entry / "cwd").readlink())
            except OSError:
                continue
            if command and (any(mark in told for mark in marks) or cwd.startswith(marks[2])):
                yield command.replace(b"\0", b" ").decode()
