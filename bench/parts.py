"""Processes of a benchmark: started, pinned, asked for their CPU time, and always stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


@dataclass
class Row:
    """One line of the table. ``met`` is None where nothing could be measured."""

    what: str
    goal: str
    measured: str
    met: bool | None


@dataclass
class Parts:
    """What one benchmark has started. With ``pin`` the measured process gets the last core for itself where
    there are two; without, everything shares all of them.
    """

    folder: Path
    pin: bool = True
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def pinned(self, command: Sequence[str], *, measured: bool) -> list[str]:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if not self.pin or shutil.which("taskset") is None or len(cores) < 2:
            return list(command)
        mask = [cores[-1]] if measured else cores[:-1]
        return ["taskset", "-c", ",".join(map(str, mask)), *command]

    def start(
        self, command: Sequence[str], *, measured: bool = False, **options: Any
    ) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(self.pinned(command, measured=measured), cwd=ROOT, **options)
        self.children.append(child)
        return child

    def module(
        self, name: str, *args: object, measured: bool = False, **options: Any
    ) -> subprocess.Popen[bytes]:
        return self.start([sys.executable, "-m", name, *map(str, args)], measured=measured, **options)

    def figures(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The JSON line that a child prints before it ends."""
        out, _ = child.communicate(timeout=120)
        if child.returncode != 0:
            raise RuntimeError(f"{child.args!r} ended with {child.returncode}")
        return dict(orjson.loads(out.splitlines()[-1]))


def cpu_seconds(pid: int) -> float | None:
    """User and system CPU seconds of a process so far; None where the system has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """That process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def resident_mb(pid: int) -> float:
    """Resident memory of one process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def spread(values: Sequence[float | None], how: str = ",.0f") -> str:
    """Minimum / median / maximum."""
    known = [value for value in values if value is not None]
    if not known:
        return "not measured here"
    return " / ".join(format(value, how) for value in (min(known), median(known), max(known)))


def per_1000(cpu: float, requests: float) -> float | None:
    """CPU seconds per 1,000 requests; None without requests."""
    return cpu / requests * 1000 if requests else None


@contextmanager
def parts(*, pin: bool = True) -> Iterator[Parts]:
    """A folder and the children started in it; all gone at the end."""
    made = Parts(Path(tempfile.mkdtemp(prefix="beamline-bench-")), pin=pin)
    try:
        yield made
    finally:
        for child in reversed(made.children):
            if child.poll() is None:
                child.terminate()
        for child in made.children:
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()
        shutil.rmtree(made.folder, ignore_errors=True)
