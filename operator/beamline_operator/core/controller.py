"""Runs the reconciler: which keys, when, and how many at a time.

Tasks: ``workers`` workers that take keys from the queue, and one that compares everything with everything on
a timer. ``start`` returns at once; ``stop`` lets each worker finish the key in its hands (bounded), waits for
registry writes that are under way, and drops the rest: what was dropped is found again by the next start.

What wakes a key: the store (:meth:`Controller.enqueue`), another object (the reconciler's ``notify``), a
router's report (:meth:`Controller.on_router_report`), its own timer, the full compare. What woke it is never
passed on.

The full compare repairs what was missed, in all directions: rows and workloads without an object are removed,
rows that are missing or say something else are written again, and every object is looked at once with all
that it owns, spread over a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final
from uuid import uuid4

import structlog

from beamline_contract.names import object_id
from beamline_contract.objects import Extension, Kind, ObjectKey
from beamline_contract.reports import RouterHealth, RouterStatus
from beamline_registry.port import FencedError, RegistryError, RegistryWriter
from beamline_sdk.deployment.port import DeploymentError
from beamline_sdk.waiting import ended

from .crowd import Crowd
from .drift import RowCompare
from .health import SLOT_S
from .ports import Hints, ObjectStore, StoreError
from .queue import Clock, WorkQueue
from .reconciler import Reconciler, RetryLater
from .versions import base_of
from .workload import read_by

RESYNC_S: Final = 300.0
SPREAD_S: Final = 10.0
"""A change that touches every object, such as a router that comes or goes, is spread over up to this long."""
CROWD: Final = 32
"""With more objects due than this, each is served first and described when there is time."""
DESCRIBERS: Final = 4
"""So many workers at most describe what is served, while a crowd arrives."""
STOP_GRACE_S: Final = 10.0
KEPT_REVISIONS: Final = 10_000
"""Tombstones of so many revisions stay; a router that was away for longer reads everything once."""

_log = structlog.get_logger()


class Controller:
    """Drives a :class:`Reconciler`.

    ``refresh`` makes the store list its objects afresh, before each full compare. ``on_fenced`` is called
    once when another operator turns out to have taken over. ``observe`` is told key, result and seconds of
    each reconcile.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        store: ObjectStore,
        hints: Hints,
        registry: RegistryWriter,
        *,
        workers: int = 4,
        resync_s: float = RESYNC_S,
        refresh: Callable[[], Awaitable[object]] | None = None,
        on_fenced: Callable[[], None] | None = None,
        observe: Callable[[ObjectKey, str, float], None] | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._reconciler = reconciler
        self._store = store
        self._hints = hints
        self._registry = registry
        self._workers = workers
        self._resync_s = resync_s
        self._refresh = refresh
        self._on_fenced = on_fenced
        self._observe = observe
        self._jitter = jitter
        self._reports: dict[str, RouterStatus] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._fenced = False
        self.queue = WorkQueue(clock, jitter=jitter)
        self.drift_repairs = 0
        self._rows = RowCompare(store, registry, reconciler, self.queue)
        self.fenced: str | None = None
        """What the registry said when it turned out that another operator writes."""
        reconciler.notify = self._enqueue_later
        self._clock = clock
        self._crowd = Crowd()
        reconciler.crowded = lambda: len(self.queue) > CROWD or self._crowd.is_here(self._time())
        reconciler.batcher.crowded = reconciler.crowded
        self.queue.later_at_once = lambda: DESCRIBERS if self._crowd.is_here(self._time()) else workers

    @property
    def registry_fault(self) -> str | None:
        """Why the last write did not reach the registry; None while it answers."""
        return self._reconciler.batcher.fault

    def enqueue(self, key: ObjectKey) -> None:
        """Something happened to ``key``, or may have. What the registry does not hold yet goes first."""
        stored, row = self._store.get(key), self._reconciler.ledger.get(key)
        first = stored is None or row is None or stored.metadata.deleting
        if stored is not None and (row is None or row.record.generation != stored.metadata.generation):
            first = True
            self._crowd.arrive(self._time())
        self.queue.add(key, first=first)

    def _time(self) -> float:
        return (self._clock or asyncio.get_running_loop()).time()

    def _enqueue_later(self, key: ObjectKey) -> None:
        self.queue.add(key, first=False)

    def enqueue_workload(self, namespace: str, name: str) -> None:
        """The workload of an Extension changed."""
        key = ObjectKey("Extension", namespace, name)
        if self._store.get(key) is not None:
            self.queue.add(key)

    def enqueue_readers(self, kind: str, namespace: str, name: str) -> None:
        """A Secret or ConfigMap changed: the workloads that read it are looked at."""
        for stored in self._store.list("Extension"):
            if (
                stored.metadata.namespace == namespace
                and isinstance(stored, Extension)
                and (kind, name) in read_by(stored)
            ):
                self.queue.add(stored.key)

    def enqueue_listeners(self, subject: str) -> None:
        """What the extension on ``subject`` publishes about its configuration changed."""
        for stored in self._store.list("Extension"):
            if isinstance(stored, Extension) and stored.subject == subject:
                self.queue.add(stored.key)
                self.enqueue_dependents(stored.key)
                if stored.spec.version_of is not None:
                    self.enqueue_dependents(base_of(stored))

    def enqueue_dependents(self, extension: ObjectKey) -> None:
        """Everything that refers to ``extension`` is looked at again."""
        for key in self._reconciler.index.referrers(extension):
            self._enqueue_later(key)

    def on_health(self, report: RouterHealth) -> None:
        """A router reported calls and breakers: wakes the extensions whose status is to say something new."""
        self._reconciler.samples.take(report)
        self._look_at(self._reconciler.health.take(report, self._reconciler.monotonic()))

    def settle_health(self) -> None:
        """Time went by: wakes the extensions whose health changed by it. Forgets those that are gone."""
        present = {object_id(stored.metadata.name) for stored in self._store.list("Extension")}
        self._reconciler.health.keep(present)
        self._reconciler.samples.keep(present)
        now = self._reconciler.monotonic()
        alive = {router.instance for router in self._hints.routers()}
        self._look_at(self._reconciler.health.keep_routers(alive, now))
        self._look_at(self._reconciler.health.settle(now))

    def _look_at(self, due: Mapping[str, float]) -> None:
        for identifier, delay in due.items():
            holder = self._reconciler.index.holder_of_id("Extension", identifier)
            if holder is not None:
                self.queue.add_after(holder, delay)

    def on_router_report(self, status: RouterStatus) -> None:
        """A router reported, or is gone (``leaving``): wakes the objects for which it makes a difference."""
        before = self._reports.pop(status.instance, None)
        if not status.leaving:
            self._reports[status.instance] = status
        else:
            self._look_at(
                self._reconciler.health.forget_router(status.instance, self._reconciler.monotonic())
            )
        if before is None or status.leaving:
            if before is not None or not status.leaving:
                self._spread(key for key, _ in self._reconciler.ledger.items())
            return
        ledger = self._reconciler.ledger
        others = [report.revision for report in self._reports.values() if report is not status]
        served = ledger.changed_between(
            min([before.revision, *others]), min([status.revision, *others])
        )  # by every router: all that there is to say about them
        served |= self._taken_back(status.revision, before.revision)
        for key in ledger.changed_between(before.revision, status.revision) - served:
            self.queue.add_after(key, self._reconciler.patience_s)
        remarks = set(_remarks(before)) ^ set(_remarks(status))
        for kind, identifier, _ in remarks:
            holder = self._reconciler.index.holder_of_id(kind, identifier)
            if holder is not None:
                served.add(holder)
        for key in served:
            self._enqueue_later(key)

    def _taken_back(self, after: int, until: int) -> set[ObjectKey]:
        """What a router that went back to revision ``after`` no longer serves. It may have been restarted, or
        the database restored from a backup: so what the registry holds is asked once more.
        """
        ledger = self._reconciler.ledger
        keys = ledger.changed_between(after, until)
        for key in keys:
            stored, row = self._store.get(key), ledger.get(key)
            if stored is None or row is None:
                continue
            if row.record.generation == stored.metadata.generation:  # else its reconcile may not write it
                ledger.forget(key)
        return keys

    async def start(self) -> None:
        """Enqueues every object that exists and starts working. Call it once the store has its objects."""
        for key in self._reconciler.learn():
            self.queue.add(key, first=not self._is_described(key))
        self._fenced = False
        self._reports = {status.instance: status for status in self._hints.routers()}
        self._tasks = [
            asyncio.create_task(self._work(), name=f"reconcile-{number}") for number in range(self._workers)
        ]
        self._tasks.append(asyncio.create_task(self._resync(), name="full-compare"))
        self._tasks.append(asyncio.create_task(self._watch_health(), name="health-window"))

    def _is_described(self, key: ObjectKey) -> bool:
        """Whether the last operator had said something about this generation: it can wait for the others."""
        stored = self._store.get(key)
        if stored is None or stored.metadata.deleting:
            return False
        return stored.status.get("observedGeneration") == stored.metadata.generation

    async def stop(self) -> None:
        """Ends all tasks; a key in a worker's hands is finished, for at most ten seconds."""
        tasks, self._tasks = self._tasks, []
        self.queue.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.queue.wait_idle(), STOP_GRACE_S)
        await ended(*tasks)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reconciler.batcher.stop(), STOP_GRACE_S)
        self.queue.close()

    async def sweep(self, *, contents: bool = False) -> int:
        """Removes rows and workloads without an object, and puts back rows that are not as this process left
        them (:mod:`.drift`). Returns how many there were. Raises ``RegistryError`` and ``DeploymentError``.
        """
        repaired = await self._rows.run(contents=contents)
        repaired += await self._reconciler.sweep_workloads(self._rows.retained)
        self.drift_repairs += repaired
        return repaired

    async def compare(self) -> int:
        """One full compare. Returns how much had to be repaired. Raises ``RegistryError`` and
        ``DeploymentError``.
        """
        repaired = await self.sweep(contents=True)
        await self._registry.compact(KEPT_REVISIONS, epoch=self._reconciler.epoch)
        self._spread(self._reconciler.learn())
        return repaired

    def _spread(self, keys: Iterable[ObjectKey]) -> None:
        """Looks at many keys without a herd: a thousand a second at most, over at most :data:`SPREAD_S`."""
        chosen = list(keys)
        window = min(SPREAD_S, len(chosen) / 1000)
        for key in chosen:
            self.queue.add_after(key, window * self._jitter())

    def pause_s(self) -> float:
        """Until the next full compare: no two operators, and no two turns, keep step."""
        return self._resync_s * (0.8 + 0.4 * self._jitter())

    async def _resync(self) -> None:
        """A sweep first: an object may have gone, without a finalizer yet, while nobody watched."""
        work: Callable[[], Awaitable[int]] = self.sweep
        while True:
            try:
                await work()
            except StoreError as error:
                _log.warning("drift.refresh_failed", error=str(error))
            except FencedError as error:
                self._lose(error)
            except (RegistryError, DeploymentError) as error:
                _log.warning("drift.compare_failed", error=str(error))
            work = self._compare_afresh
            await asyncio.sleep(self.pause_s())

    async def _compare_afresh(self) -> int:
        if self._refresh is not None:
            await self._refresh()
        return await self.compare()

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(SLOT_S)
            self.settle_health()

    async def work_on(self, key: ObjectKey) -> None:
        """One reconcile of a key that was taken from the queue."""
        started = asyncio.get_running_loop().time()
        result = "error"
        stored = self._store.get(key)
        context = {
            "object": str(key),
            "generation": stored.metadata.generation if stored is not None else None,
            "reconcile_id": uuid4().hex[:12],
        }
        try:
            with structlog.contextvars.bound_contextvars(**context):  # every line of this pass has them
                result = await self._one(key)
        finally:
            self.queue.done(key)
            if self._observe is not None:
                self._observe(key, result, asyncio.get_running_loop().time() - started)

    async def _work(self) -> None:
        while True:
            await self.work_on(await self.queue.get())

    async def _one(self, key: ObjectKey) -> str:
        if self._fenced:
            return "fenced"
        try:
            wake = await self._reconciler.reconcile(key)
        except RetryLater as error:
            delay = self.queue.retry(key, soon=error.soon)
            _log.info("reconcile.later", reason=str(error), delay_s=round(delay, 2))
            return "retry"
        except FencedError as error:
            self._lose(error)
            return "fenced"
        except Exception:  # noqa: BLE001 -- one object must never stop the others; it is logged and retried
            _log.exception("reconcile.crashed")
            self.queue.retry(key)
            return "error"
        self.queue.forget(key)
        if wake is not None:
            self.queue.add_after(key, wake)
        return "ok"

    def _lose(self, error: FencedError) -> None:
        if not self._fenced:
            self._fenced = True
            self.fenced = str(error)
            _log.warning("controller.fenced", reason=self.fenced)
            if self._on_fenced is not None:
                self._on_fenced()


def _remarks(status: RouterStatus) -> Iterable[tuple[Kind, str, str]]:
    for refusal in status.refused:
        yield (refusal.kind, refusal.id, f"{refusal.generation} {refusal.field} {refusal.reason}")
    for notice in status.notices:
        yield (notice.kind, notice.id, f"{notice.reason} {notice.message}")
