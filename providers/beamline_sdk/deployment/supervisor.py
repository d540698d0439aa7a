"""One process that is kept running: started, watched, restarted, stopped.

Lifecycle. :meth:`Supervised.start` begins one task, which repeats: choose a free port, start the process,
read what it writes into its log, ask ``/readyz`` until it is ready and from then on now and then, wait for
its end, wait for the back-off. :meth:`Supervised.stop` ends the process (SIGTERM to its whole process group,
SIGKILL after ``Timing.stop_s``) and then the task. ``on_change`` is called after every change of
:attr:`Supervised.health`, on the event loop, and must not block.

The process dies with us, however we end: Linux is asked to kill it when the thread that started it (that of
the event loop) is gone. It is the leader of a process group of its own, so Ctrl-C at the terminal reaches
only us, and we stop things in order.

A process that answers nothing at all any more (frozen, or its loop blocked) is killed after
``Timing.deaf_probes`` probes and started again; one that answers "not ready" is left alone: it knows why.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog

from .logfile import LogFile
from .readiness import probe
from .watchdog import Watchdog

log = structlog.get_logger()

_PR_SET_PDEATHSIG: Final = 1
_LIBC = ctypes.CDLL(None)  # loaded here: after fork is too late
_LINE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Timing:
    """Bounds of a supervised process, seconds unless said otherwise.

    The back-off doubles from ``first_backoff_s`` to ``max_backoff_s`` and starts again once the process has
    been ready for ``steady_s``. After ``crash_loop`` (a count) ends in a row the process counts as failed; it
    is still restarted.
    """

    first_backoff_s: float = 0.2
    max_backoff_s: float = 30.0
    steady_s: float = 10.0
    stop_s: float = 10.0
    probe_starting_s: float = 0.05
    probe_ready_s: float = 1.0
    probe_timeout_s: float = 2.0
    deaf_probes: int = 5
    settle_s: float = 0.5
    """A process without a probe counts as ready when it has lived this long."""
    crash_loop: int = 3


class State(StrEnum):
    """How a supervised process is."""

    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not-ready"
    """It runs and says that it is not ready; ``message`` is its reason."""
    BACKOFF = "backoff"
    """It ended and is started again soon."""
    FAILED = "failed"
    """It ends again and again; ``message`` says how."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What runs. ``port_variable`` gets ``port``, or with 0 a free port at each start; without ``probe_path``
    there is no probe.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    port_variable: str = "METRICS_PORT"
    port: int = 0
    probe_path: str | None = "/readyz"


@dataclass(frozen=True, slots=True)
class ProcessHealth:
    """A moment in the life of a process. ``pid`` and ``port`` are None while none runs."""

    state: State
    message: str = ""
    pid: int | None = None
    port: int | None = None
    starts: int = 0


class Supervised:
    """One process, kept running from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        timing: Timing | None = None,
        on_change: Callable[[ProcessHealth], None] | None = None,
        log_file: LogFile | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.spec = spec
        self.health = ProcessHealth(State.STARTING)
        self._timing = timing or Timing()
        self._on_change = on_change
        self._log = log_file or LogFile(spec.log)
        self._watchdog = watchdog
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ends_in_a_row = 0
        self._ready_at: float | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begins; how it goes is in :attr:`health`."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"process {self.spec.name}")

    async def stop(self) -> None:
        """Ends the process and waits until it is gone. More than once is fine."""
        self._stopping.set()
        if self._process is not None:
            await self._end(self._process)
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=2.0)
            self._task.cancel()
            await asyncio.wait({self._task})
        self._set(State.STOPPED)

    def kill(self) -> None:
        """Ends the process group at once, without a chance to clean up, and does not start it again."""
        self._stopping.set()
        _signal(self._process, signal.SIGKILL)

    async def _run(self) -> None:
        timing = self._timing
        while not self._stopping.is_set():
            await self._once()
            backoff = timing.first_backoff_s * 2.0 ** min(max(self._ends_in_a_row - 1, 0), 30)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), min(backoff, timing.max_backoff_s))

    async def _once(self) -> None:
        """One life of the process, to its end."""
        port, starts = self.spec.port or free_port(), self.health.starts + 1
        self._log.forget_tail()
        self._ready_at = None
        try:
            self._process = process = await self._spawn(port)
        except OSError as error:
            self._ends_in_a_row += 1
            self._ended(f"can't be started: {error.strerror or error}", starts)
            return
        if self._watchdog is not None:
            self._watchdog.watch(process.pid)
        if self._stopping.is_set():  # stop() came while the process was being started
            await self._end(process)
        state = State.FAILED if self._is_looping else State.STARTING  # until it proves the contrary
        self._set(state, self.health.message if self._is_looping else "", process.pid, port, starts)
        helpers = (asyncio.create_task(self._read(process)), asyncio.create_task(self._probe(process, port)))
        try:
            code = await process.wait()
        finally:
            _signal(process, signal.SIGKILL)  # what it left behind in its group
            helpers[1].cancel()
            await asyncio.wait(helpers, timeout=1.0)
            helpers[0].cancel()
            await asyncio.wait(helpers)
            self._process = None
            if self._watchdog is not None:
                self._watchdog.forget(process.pid)
        if not self._stopping.is_set():
            self._ends_in_a_row = 1 if self._was_steady() else self._ends_in_a_row + 1
            self._ended(_how_it_ended(code), starts)

    def _was_steady(self) -> bool:
        since = self._ready_at
        return since is not None and asyncio.get_running_loop().time() - since >= self._timing.steady_s

    async def _spawn(self, port: int) -> asyncio.subprocess.Process:
        parent = os.getpid()

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before we asked
                os._exit(1)

        return await asyncio.create_subprocess_exec(
            *self.spec.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**self.spec.env, self.spec.port_variable: str(port)},
            cwd=self.spec.cwd,
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
            limit=_LINE_BYTES,
        )

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    self._log.write(error.partial)
                return
            except asyncio.LimitOverrunError as error:
                line = await process.stdout.readexactly(error.consumed)
            self._log.write(line)

    async def _probe(self, process: asyncio.subprocess.Process, port: int) -> None:
        timing, path, now = self._timing, self.spec.probe_path, asyncio.get_running_loop().time
        if path is None:
            await asyncio.sleep(timing.settle_s)
            self._is_ready(process.pid, port)
            return
        pause, deaf, heard, began = timing.probe_starting_s, 0, False, now()
        while True:
            answer = await probe("127.0.0.1", port, path, timing.probe_timeout_s)
            if answer is None:
                self._is_ready(process.pid, port)
                pause, deaf, heard = timing.probe_ready_s, 0, True
            elif isinstance(answer, str):
                self._ready_at = None
                self._set(State.NOT_READY, answer, process.pid, port)
                deaf, heard = 0, True
            elif heard:
                deaf += 1
                if deaf >= timing.deaf_probes:
                    self._log.write(
                        f"killed: {path} on port {port} did not answer {deaf} times in a row".encode()
                    )
                    log.warning("process.deaf", name=self.spec.name, pid=process.pid, probes=deaf)
                    _signal(process, signal.SIGKILL)
                    return
                if deaf > 1:
                    self._ready_at = None
                    self._set(State.NOT_READY, f"{path} on port {port} does not answer", process.pid, port)
            elif now() - began > timing.steady_s and not self._is_looping:
                unheard = (
                    f"nothing answers {path} on port {port}, the port that {self.spec.port_variable} names"
                )
                self._set(State.STARTING, unheard, process.pid, port)
            await asyncio.sleep(pause)
            pause = min(pause * 1.1, timing.probe_ready_s)

    def _is_ready(self, pid: int, port: int) -> None:
        if self._ready_at is None:
            self._ready_at = asyncio.get_running_loop().time()
        self._set(State.READY, "", pid, port)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        _signal(process, signal.SIGTERM)
        _signal(process, signal.SIGCONT)
        try:
            await asyncio.wait_for(process.wait(), self._timing.stop_s)
        except TimeoutError:
            log.warning("process.killed", name=self.spec.name, pid=process.pid, waited_s=self._timing.stop_s)
        _signal(process, signal.SIGKILL)
        await process.wait()

    @property
    def _is_looping(self) -> bool:
        return self._ends_in_a_row >= self._timing.crash_loop

    def _ended(self, how: str, starts: int) -> None:
        words = self._log.last_words
        message = f"{how}; its last line: {words}" if words else how
        if self._is_looping:
            self._set(
                State.FAILED, f"crash loop, {self._ends_in_a_row} times in a row: {message}", starts=starts
            )
        else:
            self._set(State.BACKOFF, message, starts=starts)
        log.warning("process.ended", name=self.spec.name, message=message, times=self._ends_in_a_row)

    def _set(
        self,
        state: State,
        message: str = "",
        pid: int | None = None,
        port: int | None = None,
        starts: int | None = None,
    ) -> None:
        health = ProcessHealth(state, message, pid, port, self.health.starts if starts is None else starts)
        if health != self.health:
            self.health = health
            if self._on_change is not None:
                self._on_change(health)


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _signal(process: asyncio.subprocess.Process | None, number: signal.Signals) -> None:
    """Signals the whole process group, which may outlive its leader."""
    if process is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
