"""``beamline up`` from the first line to the last.

Signals: the first SIGINT, SIGTERM or SIGHUP sets ``stop``, and everything stops in order; a second one kills
all processes and leaves at once. A signal during the start stops what has been started so far.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import say

from .plan import Plan, prepared, with_port
from .progress import Progress
from .state import Lock, RunningUp, publish, withdraw
from .summary import ready_condition, remark_of, show_summary, stored_objects
from .world import DATABASE, World

if TYPE_CHECKING:
    from .follow import Follower

READY_S: Final = 60.0
"""After this long the table is shown, with what is not ready yet."""
FORCED: Final = 130
_SETTLED: Final = frozenset(
    {"WorkloadNotRunnable", "WorkloadFailed", "CredentialsMissing", "Invalid", "Conflicted", "RefNotFound",
     "RefNotPermitted", "RefWrongType", "RefNotAccepted", "RefDisabled", "Refused", "Suspended",
     "ConfigInvalid", "WorkloadRolledBack", "CanaryWaiting", "CanaryProgressing", "CanaryPaused",
     "CanaryRolledBack", "CanaryAborted"}
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
        if plan.ephemeral:
            shutil.rmtree(plan.state_folder, ignore_errors=True)


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
        world.on_workload, world.on_router = follower.workload, follower.router
        store.on_event = follower.event
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
        show_summary(world, self._progress)
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
            for key, reason, ready, remark in self._conditions():
                if ready and key not in told:
                    told.add(key)
                    self._progress.line("ready", f"{key}{remark}", "yellow" if remark else "green")
                waiting = waiting or not (ready or reason in _SETTLED)
            admin = self._world.admin
            waiting = waiting or (admin is not None and admin.process.health.state not in {"ready", "failed"})
            if not waiting and "router" in told:
                return
            await asyncio.sleep(0.02)

    def _conditions(self) -> Iterator[tuple[str, str, bool, str]]:
        """Every object with the reason and the verdict of its Ready condition, and what there is to remark.

        What the last run left there says nothing: it counts from the first report of a router of this run.
        """
        store, hints = self._world.store, self._world.hints
        assert store is not None
        fresh = hints is not None and bool(hints.routers())
        for stored in stored_objects(store):
            ready = ready_condition(stored)
            if fresh and ready.get("observedGeneration") == stored.metadata.generation:
                remark = f", but {found}: {ready['message']}" if (found := remark_of(ready)) else ""
                yield str(stored.key), str(ready["reason"]), ready["status"] == "True", remark
            else:
                yield str(stored.key), "", False, ""

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
