"""One component of Beamline as a real process, the way a person or a pod would start it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

BEAMLINE = (sys.executable, "-m", "beamline_cli")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(check: Callable[[], object], what: str, seconds: float = 30.0, pause: float = 0.05) -> object:
    """The first true answer of ``check``; fails with the last exception or answer when none comes in time."""
    give_up = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < give_up:
        try:
            last = check()
            if last:
                return last
        except (AssertionError, OSError, LookupError) as error:
            last = error
        time.sleep(pause)
    raise AssertionError(f"{what}: not within {seconds:.0f} s, last: {last!r}")


class Process:
    """A child process with its output in a file. ``port`` is where it serves /readyz and /metrics."""

    def __init__(
        self, name: str, command: tuple[str, ...], env: Mapping[str, str], log: Path, port: int
    ) -> None:
        self.name = name
        self.log = log
        self.port = port
        self._command = command
        self._env = {**os.environ, **env}
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Process:
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        if wait:
            eventually(self.ready, f"{self.name} ready (log: {self.tail()})")
        return self

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def ready(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, f"{self.name} ended with {self._child.returncode}: {self.tail()}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as reply:
                return bool(reply.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except urllib.error.URLError:
            return False

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples called ``name`` whose labels include ``labels``; 0 where there are none."""
        from prometheus_client.parser import text_string_to_metric_families

        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as reply:
            text = reply.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def send(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 20.0) -> int | None:
        """Ends the process and returns its exit code; None where it was not running."""
        child, self._child = self._child, None
        if child is None:
            return None
        if child.poll() is None:
            child.send_signal(how)
            child.send_signal(signal.SIGCONT)
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise AssertionError(f"{self.name} did not stop within {seconds} s: {self.tail()}") from None

    def tail(self, lines: int = 15) -> str:
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
        )
