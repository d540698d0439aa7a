"""The process that owns the shared control plane of a test run: ``python -m controlplane.keeper FOLDER``.

It ends when nobody holds the lock on FOLDER/users any more; :mod:`.shared` tells the whole story.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from .binaries import KUBECTL, find_or_build
from .client import Cluster
from .plane import ControlPlane
from .shared import FAILED, READY, USERS

_POLL_SECONDS = 0.5


def main(folder: Path) -> int:
    signal.signal(signal.SIGTERM, _end)
    users = os.open(folder / USERS, os.O_RDWR)
    binaries = find_or_build()  # found: the worker that started us has seen to it
    plane = ControlPlane(binaries)
    try:
        plane.start()
        Cluster(plane.kubeconfig, binaries.path(KUBECTL)).apply_crds()
        _write(folder / READY, f"{os.getpid()}\n{plane.kubeconfig}")
        while not _alone(users) and plane.broken() is None:
            time.sleep(_POLL_SECONDS)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the worker that waits has to hear of it
        _write(folder / FAILED, str(error))
        return 1
    finally:
        (folder / READY).unlink(missing_ok=True)
        plane.stop()
    return 0


def _alone(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True  # the lock is kept until this process ends, so that nobody joins a plane that is going away


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
