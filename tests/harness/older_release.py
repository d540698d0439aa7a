"""The program as it was before the newest migration, taken out of the repository's history.

Not a copy that somebody keeps: the commit that added the newest migration is looked up, and the sources of
its parent are what runs. Where there is no history (a release's archive, a shallow clone) there is nothing
to take.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from beamline_registry.migrate import latest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("crds", "registry", "router", "providers")
HOW_TO_GET = (
    "the history does not reach back before the newest migration: clone with all of it (fetch-depth: 0)"
)


class NoHistoryError(Exception):
    """There is no older release to be had here; the message says how to get one."""


@dataclass(frozen=True)
class OlderRelease:
    """Sources in ``folder``. ``migrations`` are those that it knows."""

    folder: Path
    migrations: tuple[str, ...]

    @property
    def env(self) -> dict[str, str]:
        """Under which Python finds it before what is installed."""
        return {"PYTHONPATH": os.pathsep.join(str(self.folder / room) for room in ROOMS)}

    def run(self, code: str, *arguments: str) -> str:
        """What a program of that release prints. Fails with what it complained of."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **self.env},
            cwd=self.folder,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def unpack(folder: Path) -> OlderRelease:
    """The release before the newest migration, in ``folder``. Raises :class:`NoHistoryError`."""
    newest = f"registry/beamline_registry/migrations/{latest()}.sql"
    try:
        added = _git("log", "--diff-filter=A", "--format=%H", "--", newest).decode().split()
        archive = _git("archive", "--format=tar", f"{added[-1]}^", *ROOMS)
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise NoHistoryError(HOW_TO_GET) from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    known = folder / "registry" / "beamline_registry" / "migrations"
    return OlderRelease(folder, tuple(sorted(path.stem for path in known.glob("*.sql"))))


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
