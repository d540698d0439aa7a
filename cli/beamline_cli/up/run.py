"""``beamline up`` from the first line to the last.

Signals: the first SIGINT, SIGTERM or SIGHUP sets ``stop``, and everything stops in order; a second one kills
all processes and leaves at once. A signal during the start stops what has been started so far.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import say

from .plan import Plan, prepared, with_port
from .progress import Progress
from .state import Lock, RunningUp, publish, withdraw
from .world import DATABASE, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .follow import Follower

READY_S: Final = 60.0
"""After this long the table is shown, with what is not ready yet."""
FORCED: Final = 130
_EXAMPLE: Final = "  Mail   ME at jane.doe@example.com "
_SETTLED: Final = frozenset(
    {"WorkloadNotRunnable", "WorkloadFailed", "CredentialsMissing", "Invalid", "Conflicted", "RefNotFound",
     "RefNotPermitted", "RefWrongType", "RefNotAccepted", "Refused", "Suspended"}
)  # fmt: skip
"""Reasons for which waiting does not help."""


def run(plan: Plan) -> int:
    """Runs until a signal; returns the exit code. Raises :class:`CliError` where it can't start."""
    from beamline_sdk import logs

    plan = prepared(plan, os.environ)
    logs.configure("up", level=plan.log_level, silent=plan.log_level != "debug")
    lock = Lock(plan.state_folder)
    lock.acquire(plan.folder)
    try:
        plan = with_port(plan)
        world = World(plan, Progress(), os.environ)
        with asyncio.Runner() as runner:
            return runner.run(_Run(world, lock).run())
    finally:
        withdraw(plan.state_folder)
        lock.release()


class _Run:
    def __init__(self, world: World, lock: Lock) -> None:
        self._world = world
        self._plan = world.plan
        self._progress = world.progress
        self._lock = lock
        self._stop = asyncio.Event()

    async def run(self) -> int:
        with self._signals():
            try:
                await self._unless_stopped(self._start())
                if not self._stop.is_set():
                    await self._unless_stopped(self._follow())
            finally:
                await self._shut_down()
        return ExitCode.OK

    async def _start(self) -> None:
        plan, world = self._plan, self._world
        self._progress.line("manifests", str(plan.folder))
        await world.start_servers()
        from .follow import Follower

        with self._progress.step("core", "reconciling"):
            await world.start_core()
        store, deployments = world.store, world.deployments
        assert store is not None
        assert deployments is not None
        follower = Follower(self._progress, store, deployments)
        assert world.loaded is not None
        follower.loaded(world.loaded)
        store.on_status, world.on_workload, world.on_router = (
            follower.status,
            follower.workload,
            follower.router,
        )
        publish(
            RunningUp(
                pid=os.getpid(),
                folder=str(plan.folder),
                state=plan.state_folder,
                url=world.url,
                nats_url=world.nats.url,
                database_url=world.postgres.url(DATABASE),
                started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
        await self._until_ready()
        self._summary()
        store.on_status = follower.status
        self._follower: Follower = follower
        self._progress.follow()

    async def _until_ready(self) -> None:
        """Waits until every object is ready or will not get ready by itself, telling about each that is."""
        told: set[object] = set()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + READY_S
        while loop.time() < give_up:
            waiting = False
            router = self._world.router
            if router is not None and router.health.state == "ready" and "router" not in told:
                told.add("router")
                self._progress.line("router", f"ready on {self._world.url}", "green")
            if router is not None and router.health.state == "failed":
                raise CliError(f"the router does not start: {router.health.message}", ExitCode.UNAVAILABLE)
            for key, reason, ready in self._conditions():
                if ready and key not in told:
                    told.add(key)
                    self._progress.line("ready", key, "green")
                waiting = waiting or not (ready or reason in _SETTLED)
            if not waiting and "router" in told:
                return
            await asyncio.sleep(0.02)

    def _conditions(self) -> Iterator[tuple[str, str, bool]]:
        store = self._world.store
        assert store is not None
        for kind in ("Extension", "RoutingPolicy"):
            for stored in store.list("Extension" if kind == "Extension" else "RoutingPolicy"):
                conditions = {entry["type"]: entry for entry in stored.status.get("conditions", ())}
                ready = conditions.get("Ready", {})
                current = ready.get("observedGeneration") == stored.metadata.generation and not self._is_old(
                    ready
                )
                yield (
                    str(stored.key),
                    str(ready.get("reason", "")) if current else "",
                    current and ready["status"] == "True",
                )

    def _is_old(self, _: object) -> bool:
        """A status from the last run says nothing until a router of this run has reported."""
        hints = self._world.hints
        return hints is None or not hints.routers()

    def _summary(self) -> None:
        rows, colours = self._rows()
        say()
        self._progress.table(("WHAT", "STATE", "WHERE", "PROCESS", "LOG"), rows, colours)
        say()
        self._progress.line(
            "ready", f"in {self._progress.seconds:.1f} s; state in {self._plan.state_folder}", "bold"
        )
        say()
        say("Try it:")
        say(f"  curl -s {self._world.url}/v1/route -H 'content-type: application/json' \\")
        say(f"""    -d '{{"prompt": "{_EXAMPLE}"}}'""")
        say(f'  beamline invoke "{_EXAMPLE}"')
        say()
        edits = f"Edit {self._plan.folder}: changes are taken in as you save. " if self._plan.watch else ""
        say(f"{edits}Ctrl-C stops everything.")
        say()

    def _rows(self) -> tuple[Sequence[Sequence[str]], Sequence[str | None]]:
        world, logs = self._world, self._plan.logs
        assert world.router is not None
        assert world.deployments is not None
        assert world.store is not None
        router = world.router.health
        rows: list[tuple[str, ...]] = [
            (
                "postgresql",
                "ready",
                f"unix socket, database {DATABASE}",
                str(world.postgres.pid),
                str(logs / "postgres.log"),
            ),
            ("nats", "ready", world.nats.url, str(world.nats.pid), str(logs / "nats.log")),
            ("router", str(router.state), world.url, str(router.pid or "-"), str(logs / "router.log")),
        ]
        running = {(info.namespace, info.name) for info in world.deployments.processes()}
        for info in world.deployments.processes():
            stored = next((s for s in world.store.list("Extension") if s.metadata.name == info.name
                           and s.metadata.namespace == info.namespace), None)  # fmt: skip
            where = str(getattr(stored, "subject", "-"))
            rows.append(
                (info.name, str(info.health.state), where, str(info.health.pid or "-"), str(info.log))
            )
        for kind in ("Extension", "RoutingPolicy"):
            for stored in world.store.list("Extension" if kind == "Extension" else "RoutingPolicy"):
                meta = stored.metadata
                ready: dict[str, Any] = next(
                    (c for c in stored.status.get("conditions", ()) if c["type"] == "Ready"), {}
                )
                if kind == "Extension" and (meta.namespace, meta.name) in running:
                    continue
                state = "ready" if ready.get("status") == "True" else str(ready.get("reason", "unknown"))
                where = "policy in the router" if kind == "RoutingPolicy" else str(ready.get("message", "-"))
                rows.append((meta.name, state, where, "-", "-"))
        return rows, [None if row[1] == "ready" else "red" for row in rows]

    async def _follow(self) -> None:
        world = self._world
        keeping = asyncio.create_task(world.keep_servers(), name="keep-servers")
        try:
            await self._until_stopped()
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})

    async def _until_stopped(self) -> None:
        world, follower = self._world, self._follower
        store, controller = world.store, world.controller
        assert store is not None
        assert controller is not None
        if not self._plan.watch:
            await self._stop.wait()
            return

        def take_in(changes: object) -> None:
            from beamline_operator.edges.files import Changes

            assert isinstance(changes, Changes)
            follower.changes(changes)
            for key in changes.keys:
                controller.enqueue(key)

        take_in(store.look())  # edited while we were starting
        await store.watch(take_in, self._stop)

    async def _unless_stopped(self, work: object) -> None:
        """Runs ``work`` until it ends or a signal comes."""
        assert asyncio.iscoroutine(work)
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def _shut_down(self) -> None:
        self._progress.follow()
        if self._stop.is_set():
            say()
            self._progress.line("stopping", "the router first, then the extensions, NATS and PostgreSQL")
        await self._world.stop()
        if self._stop.is_set():
            kept = "nothing is kept" if self._plan.ephemeral else f"data is kept in {self._plan.state_folder}"
            self._progress.line("stopped", kept)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _signalled(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        self._progress.line("killed", "everything, at once", "red")
        self._world.kill()
        withdraw(self._plan.state_folder)
        self._lock.release()
        sys.stdout.flush()
        os._exit(FORCED)
