"""The deployments port on a laptop: each replica is a supervised local process.

A change replaces what runs: the processes of the new state are started beside the old ones, and the old ones
are stopped when all new ones are ready. A new state that never gets ready leaves the old one in service, and
the status says so. Both may serve for a moment: they share a NATS queue group, as the pods of a rolling
update do.

All of it runs on one event loop. ``deploy`` only notes what is wanted and starts the roll as a task; a newer
``deploy`` of the same workload waits until the roll before it has been called off, so rolls never overlap.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from .environment import NotRunnable, Runnable, resolve
from .logfile import LogFile
from .port import DeploymentError, DeploymentRequest, DeploymentStatus, Found, Phase
from .readiness import worded
from .supervisor import ProcessHealth, ProcessSpec, State, Supervised, Timing
from .watchdog import Watchdog

Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process, for people: the table of ``beamline up``."""

    namespace: str
    name: str
    replica: int
    health: ProcessHealth
    log: Path


@dataclass(slots=True)
class _Set:
    """The processes of one desired state, or why there are none."""

    request: DeploymentRequest
    processes: list[Supervised] = field(default_factory=list)
    refusal: NotRunnable | None = None

    @property
    def ready(self) -> int:
        return sum(process.health.state is State.READY for process in self.processes)


@dataclass(slots=True)
class _Workload:
    serving: _Set | None = None
    coming: _Set | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    roll: asyncio.Task[None] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ProcessDeployments:
    """Runs workloads as child processes. Logs go to ``logs``; relative programs are looked for in ``cwd``.

    ``environ`` stands for the environment of whoever started us (Secrets are looked up there).
    ``on_change(namespace, name)`` is called whenever a status may have changed, on the event loop.
    """

    def __init__(
        self,
        logs: Path,
        *,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        timing: Timing | None = None,
        on_change: Callable[[str, str], None] | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._logs = logs
        self._cwd = cwd or Path.cwd()
        self._environ = os.environ if environ is None else environ
        self._timing = timing or Timing()
        self._on_change = on_change
        self._workloads: dict[Key, _Workload] = {}
        self._log_files: dict[Path, LogFile] = {}
        self._stopped = False
        self._watchdog = watchdog or Watchdog()

    async def deploy(self, request: DeploymentRequest) -> None:
        """Makes ``request`` run in place of what runs; the same hash again changes nothing."""
        if self._stopped:
            raise DeploymentError("the process supervisor has been stopped", retryable=False)
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DeploymentError(
                f"the folder {self._logs} for logs can't be made: {error.strerror}"
            ) from error
        key = (request.namespace, request.name)
        workload = self._workloads.setdefault(key, _Workload())
        async with workload.lock:
            latest = workload.coming or workload.serving
            if latest is not None and latest.request.hash == request.hash:
                return
            await self._call_off(workload)
            if workload.serving is not None and workload.serving.request.hash == request.hash:
                self._notify(workload, key)
                return
            workload.coming = self._prepare(workload, key, request)
            for process in workload.coming.processes:
                process.start()
            workload.roll = asyncio.create_task(self._roll(workload, key), name=f"roll {key[0]}/{key[1]}")
        self._notify(workload, key)

    async def get_status(
        self,
        namespace: str,
        name: str,
        desired: DeploymentRequest | None = None,
    ) -> DeploymentStatus:
        """How the workload is; phase ABSENT when there is none."""
        workload = self._workloads.get((namespace, name))
        latest = None if workload is None else workload.coming or workload.serving
        if workload is None or latest is None:
            return DeploymentStatus(Phase.ABSENT)
        phase, message = _phase(latest)
        if latest is workload.coming and workload.serving is not None and phase is not Phase.PROGRESSING:
            message = f"{message}; the version before still runs"
        return DeploymentStatus(
            phase=phase,
            replicas=len(latest.processes),
            ready_replicas=latest.ready,
            message=message,
            hash=latest.request.hash,
            retained=not latest.request.owner_uid,
            details={
                "pids": [process.health.pid for process in latest.processes if process.health.pid is not None]
            },
        )

    async def delete(self, namespace: str, name: str) -> None:
        """Stops the processes of a workload and forgets it; absent is fine."""
        key = (namespace, name)
        workload = self._workloads.get(key)
        if workload is None:
            return
        async with workload.lock:
            await self._call_off(workload)
            if workload.serving is not None:
                await _stop(workload.serving)
                workload.serving = None
            if self._workloads.get(key) is workload:
                del self._workloads[key]
        self._notify(workload, key)

    async def release(self, namespace: str, name: str) -> None:
        """Leaves the processes as they run, without an owner; absent is fine."""
        workload = self._workloads.get((namespace, name))
        for some in (workload.serving, workload.coming) if workload is not None else ():
            if some is not None:
                some.request = replace(some.request, owner_uid="")

    async def stop(self) -> None:
        """Stops every process and takes no more work. More than once is fine."""
        self._stopped = True
        await asyncio.gather(*(self.delete(*key) for key in tuple(self._workloads)))
        self._watchdog.stop()

    def kill(self) -> None:
        """Kills every process at once, for when there is no time to stop."""
        self._stopped = True
        for info in self._all():
            info.kill()

    def workloads(self) -> Collection[Found]:
        """Every workload with the owner that it was last asked for with."""
        latest = {key: workload.coming or workload.serving for key, workload in self._workloads.items()}
        return [
            Found(*key, owned=bool(some.request.owner_uid), retained=not some.request.owner_uid)
            for key, some in latest.items()
            if some is not None
        ]

    def processes(self) -> list[ProcessInfo]:
        """Every process, by namespace, name and replica."""
        found = []
        for (namespace, name), workload in sorted(self._workloads.items()):
            latest = workload.coming or workload.serving
            for number, process in enumerate(latest.processes if latest is not None else ()):
                found.append(ProcessInfo(namespace, name, number, process.health, process.spec.log))
        return found

    def _all(self) -> list[Supervised]:
        sets = [some for workload in self._workloads.values() for some in (workload.serving, workload.coming)]
        return [process for some in sets if some is not None for process in some.processes]

    def _prepare(self, workload: _Workload, key: Key, request: DeploymentRequest) -> _Set:
        resolved = resolve(request, self._environ, self._cwd)
        if isinstance(resolved, NotRunnable):
            return _Set(request, refusal=resolved)
        return _Set(
            request, [self._process(workload, key, request, resolved, n) for n in range(request.replicas)]
        )

    def _process(
        self, workload: _Workload, key: Key, request: DeploymentRequest, runnable: Runnable, number: int
    ) -> Supervised:
        path = self._logs / f"{request.namespace}.{request.name}.{number}.log"
        probes = request.workload.probes
        spec = ProcessSpec(
            name=f"{request.namespace}/{request.name}/{number}",
            command=runnable.command,
            env=runnable.env,
            cwd=self._cwd,
            log=path,
            probe_path=probes.readiness_path if probes.enabled else None,
        )
        return Supervised(
            spec,
            timing=self._timing,
            on_change=lambda _: self._notify(workload, key),
            log_file=self._log_files.setdefault(path, LogFile(path)),
            watchdog=self._watchdog,
        )

    async def _roll(self, workload: _Workload, key: Key) -> None:
        """Waits until the coming state can serve, then puts it in place of the serving one."""
        coming = workload.coming
        assert coming is not None
        zero = coming.request.replicas == 0
        while not zero and (coming.refusal is not None or coming.ready < len(coming.processes)):
            workload.changed.clear()
            await workload.changed.wait()
        old, workload.serving, workload.coming = workload.serving, coming, None
        self._notify(workload, key)
        if old is not None:
            await _stop(old)

    async def _call_off(self, workload: _Workload) -> None:
        """Ends a roll that is under way; what it had started goes, what served stays. The roll's last act,
        stopping the old processes, is not interrupted.
        """
        roll, workload.roll = workload.roll, None
        coming, workload.coming = workload.coming, None
        if roll is not None:
            if coming is not None:
                roll.cancel()
            await asyncio.wait({roll})
        if coming is not None:
            await _stop(coming)

    def _notify(self, workload: _Workload, key: Key) -> None:
        workload.changed.set()
        if self._on_change is not None:
            self._on_change(*key)


async def _stop(some: _Set) -> None:
    await asyncio.gather(*(process.stop() for process in some.processes))


def _phase(some: _Set) -> tuple[Phase, str]:
    """The phase of a set of processes, and the sentence of the first that is not as it should be."""
    if some.request.replicas == 0:
        return Phase.SCALED_TO_ZERO, ""
    if some.refusal is not None:
        return some.refusal.phase, some.refusal.message
    if some.ready == len(some.processes):
        return Phase.READY, ""
    troubled = [process.health for process in some.processes if process.health.state is not State.READY]
    for health in troubled:
        if health.state is State.FAILED:
            return Phase.FAILED, health.message
    for health in troubled:
        phase, message = worded(health.message)
        if phase is Phase.CREDENTIALS_MISSING:
            return phase, message
    return Phase.PROGRESSING, next((health.message for health in troubled if health.message), "")
