"""The state folder between processes: who holds it, what runs there, and how others find it.

``lock`` is held by flock for as long as ``beamline up`` lives, so the kernel releases it however the process
ends; the process id inside is for people. ``run.json`` says where things are while it runs. Beside the
default states there is ``runs/``, with one pointer per running ``up``, so that ``beamline get`` finds those
with a state folder of their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from beamline_cli.faults import CliError, ExitCode

from .plan import home

_LOCK: Final = "lock"
_RUN: Final = "run.json"


@dataclass(frozen=True, slots=True)
class RunningUp:
    """A ``beamline up`` that runs."""

    pid: int
    folder: str
    state: Path
    url: str
    nats_url: str
    database_url: str
    started_at: str

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        return {**asdict(self), "state": str(self.state)}


class Lock:
    """The hold on a state folder. A lock whose holder died is free."""

    def __init__(self, state: Path) -> None:
        self._path = state / _LOCK
        self._state = state
        self._file: int | None = None

    def acquire(self, folder: Path) -> None:
        """Takes the lock. Raises :class:`CliError` where another process holds it."""
        while True:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise CliError(
                    f"{self._path} can't be opened: {error.strerror}", ExitCode.CONFIGURATION
                ) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(file, 32).decode(errors="replace").strip() or "?"
                os.close(file)
                raise CliError(
                    f"`beamline up` already runs for {folder} (process {holder}): "
                    "stop it, or choose another --state",
                    ExitCode.UNAVAILABLE,
                ) from None
            if self._is_current(file):
                break
            os.close(file)  # its holder removed the file between our open and our lock
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        """Gives the lock back and leaves no file. More than once is fine."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False


def publish(running: RunningUp) -> None:
    """Says where things are."""
    _write(running.state / _RUN, running.to_json())
    pointer = _pointer(running.state)
    with suppress(OSError):  # a convenience: --state finds it too
        pointer.parent.mkdir(parents=True, exist_ok=True)
        _write(pointer, {"state": str(running.state)})


def withdraw(state: Path) -> None:
    """Takes back what :func:`publish` said."""
    for path in (state / _RUN, _pointer(state)):
        with suppress(OSError):
            path.unlink()


def find_running(state: Path | None) -> RunningUp:
    """The ``up`` of a state folder, or the only one that runs. Raises :class:`CliError`."""
    if state is not None:
        running = _running(state)
        if running is None:
            raise CliError(f"no `beamline up` runs with the state {state}", ExitCode.UNAVAILABLE)
        return running
    found = list(_all_running())
    if not found:
        raise CliError(
            "nothing runs here: start `beamline up DIR`, or say where: --state, --kubeconfig or an address",
            ExitCode.UNAVAILABLE,
        )
    if len(found) > 1:
        here = [running for running in found if Path(running.folder) == Path.cwd()]
        if len(here) != 1:
            states = ", ".join(f"{running.state} (for {running.folder})" for running in found)
            raise CliError(f"several run: say which with --state: {states}", ExitCode.USAGE)
        found = here
    return found[0]


def read_objects(state: Path) -> list[dict[str, Any]]:
    """The objects of a state folder, as the Kubernetes API would show them."""
    found = []
    for path in sorted((state / "objects").glob("*.json")):
        with suppress(OSError, ValueError):
            found.append(json.loads(path.read_text()))
    return found


def read_faults(state: Path) -> list[dict[str, Any]]:
    """What is wrong with the files now: file, line, field, message."""
    with suppress(OSError, ValueError):
        faults: list[dict[str, Any]] = json.loads((state / "faults.json").read_text())
        return faults
    return []


def _all_running() -> Iterator[RunningUp]:
    for pointer in sorted((home(os.environ) / "runs").glob("*.json")):
        with suppress(OSError, ValueError, KeyError):
            running = _running(Path(json.loads(pointer.read_text())["state"]))
            if running is not None:
                yield running


def _running(state: Path) -> RunningUp | None:
    if not is_held(state):
        return None
    try:
        document = json.loads((state / _RUN).read_text())
        return RunningUp(**{**document, "state": Path(document["state"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_held(state: Path) -> bool:
    """Whether a `beamline up` runs with this state."""
    try:
        with (state / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _pointer(state: Path) -> Path:
    digest = hashlib.sha256(str(state).encode()).hexdigest()[:16]
    return home(os.environ) / "runs" / f"{digest}.json"


def _write(path: Path, document: Any) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(document, indent=2))
    aside.replace(path)
