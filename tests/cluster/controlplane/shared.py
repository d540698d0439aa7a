"""One control plane for all parallel test workers of a run, without anybody counting.

A worker that needs the plane takes the start lock, looks for a live keeper (:mod:`.keeper`), and starts one
if there is none. The keeper is a process that owns the plane. Each worker holds a *shared* lock on the file
``users`` from then until it ends, by whatever means: the kernel releases the lock of a dead process. Twice a
second the keeper asks for that lock *exclusively*; when it gets it, nobody uses the plane any more, and the
keeper stops it and ends. The plane's processes die with the keeper in turn. So nothing outlives a run, not
even one that was killed, and a worker that comes late waits out a keeper that is just ending and starts a new
one.

The keeper writes ``ready`` (its pid and the kubeconfig's path) or ``failed`` (why), each by a rename.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .binaries import KUBECTL, Binaries, NoControlPlaneError, file_lock
from .client import Cluster

READY, FAILED, USERS = "ready", "failed", "users"
_START_SECONDS = 150.0
_END_SECONDS = 15.0
_KEEPERS: list[subprocess.Popen[bytes]] = []
"""Keepers that this process started.

A running one must stay referenced, or Python complains of a lost child.
"""


@contextmanager
def shared_cluster(folder: Path, binaries: Binaries) -> Iterator[Cluster]:
    """The run's control plane, started if need be. ``folder`` is the same for all workers of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    users = os.open(folder / USERS, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with file_lock(folder / "start"):
            fcntl.flock(users, fcntl.LOCK_SH)
            kubeconfig = _running(folder) or _start_keeper(folder)
        yield Cluster(kubeconfig, binaries.path(KUBECTL))
        _reap_if_last(users)
    finally:
        os.close(users)


def _running(folder: Path) -> Path | None:
    try:
        pid, kubeconfig = (folder / READY).read_text().split("\n", 1)
        os.kill(int(pid), 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Path(kubeconfig) if Path(kubeconfig).exists() else None


def _start_keeper(folder: Path) -> Path:
    for stale in (READY, FAILED):
        (folder / stale).unlink(missing_ok=True)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_"))
    }
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    with (folder / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "controlplane.keeper", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is for pytest; the keeper ends when pytest has
        )
    give_up = time.monotonic() + _START_SECONDS
    while not (folder / READY).exists():
        if keeper.poll() is not None or time.monotonic() > give_up:
            keeper.kill()
            keeper.wait()
            failed = folder / FAILED
            raise NoControlPlaneError(
                failed.read_text() if failed.exists() else (folder / "keeper.log").read_text()[-800:]
            )
        time.sleep(0.05)
    _KEEPERS.append(keeper)
    return Path((folder / READY).read_text().split("\n", 1)[1])


def _reap_if_last(users: int) -> None:
    """Waits for the end of a keeper that this worker started and was the last to use."""
    with suppress(BlockingIOError, subprocess.TimeoutExpired):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(users, fcntl.LOCK_UN)
        for keeper in _KEEPERS:
            keeper.wait(_END_SECONDS)
