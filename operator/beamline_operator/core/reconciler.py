"""One object from whatever state it is in to what it asks for: gather, decide, act, until there is nothing
left to do.

:meth:`Reconciler.reconcile` is level-based: it does not know what woke it, and running it twice writes
nothing twice. It must not run twice *at the same time* for one key; the controller's queue sees to that. It
may be cancelled or killed at any await: what was done is found again by the next pass, in the registry
(UNCHANGED), the workload's hash, the finalizer and the status.

Outcomes: the number of seconds until the object wants to be looked at again, None for "when something
happens", :class:`RetryLater` where something did not answer, ``FencedError`` where another operator took
over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

import structlog

from beamline_contract.names import object_id
from beamline_contract.objects import KINDS, Extension, ObjectKey
from beamline_registry.port import Outcome, RegistryWriter, Remove
from beamline_sdk.deployment.port import DeploymentError, Deployments

from .act import Actor
from .batcher import Batcher
from .decide import decide
from .gather import Gatherer
from .health import HealthBoard
from .index import ObjectIndex
from .ledger import Ledger
from .plan import Plan
from .ports import Hints, Inputs, ObjectStore, StoredObject, StoreError
from .samples import SampleBoard
from .settings import ReconcileSettings
from .status import first_sight
from .view import Attempts, Row, View

MAX_STEPS = 6
"""Decisions in one pass. The longest way, a deletion, takes four; more would be a plan that never comes to
rest.
"""

_log = structlog.get_logger()


class RetryLater(Exception):  # noqa: N818 -- a scheduling decision, not a fault of the program
    """Something did not answer; the same reconcile may succeed later, ``soon`` with the next request."""

    def __init__(self, message: str, *, soon: bool = False) -> None:
        super().__init__(message)
        self.soon = soon


class Reconciler:
    """Reconciles objects of one store into one registry and one world of workloads.

    ``notify`` is called with every other key whose verdict may have changed; the controller puts its queue
    there.
    """

    def __init__(
        self,
        store: ObjectStore,
        deployments: Deployments | None,
        registry: RegistryWriter,
        hints: Hints,
        *,
        epoch: Callable[[], int],
        settings: ReconcileSettings,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        inputs: Inputs | None = None,
    ) -> None:
        self._store = store
        self._deployments = deployments
        self._epoch = epoch
        self._settings = settings
        self._now = now
        self.index = ObjectIndex()
        self.ledger = Ledger()
        self.health = HealthBoard()
        self.samples = SampleBoard()
        self.monotonic = clock
        self.batcher = Batcher(registry, hints, epoch)
        self.notify: Callable[[ObjectKey], None] = _nobody
        self.crowded: Callable[[], bool] = lambda: False
        """Whether so many objects are due that serving them comes first and saying so waits."""
        self._gatherer = Gatherer(
            store,
            deployments,
            hints,
            index=self.index,
            ledger=self.ledger,
            settings=settings,
            health=self.health,
            samples=self.samples,
            clock=self.monotonic,
            inputs=inputs,
        )
        self._actor = Actor(store, deployments, self.batcher, self.ledger, self.monotonic)

    @property
    def patience_s(self) -> float:
        """See :class:`ReconcileSettings`."""
        return self._settings.patience_s

    @property
    def epoch(self) -> int:
        """The epoch under which this reconciler writes now."""
        return self._epoch()

    def learn(self) -> set[ObjectKey]:
        """Takes in every object of the store at once, and returns all keys that want to be reconciled."""
        present = {stored.key: stored for kind in KINDS for stored in self._store.list(kind)}
        affected: set[ObjectKey] = set(present)
        for key in self.index.keys() - set(present):
            affected |= self.index.update(key, None) | {key}
        now = self.monotonic()
        for key, stored in present.items():
            affected |= self.index.update(key, stored)
            if key.kind == "Extension":
                self.health.inherit(object_id(key.name), stored.status, now)
        return affected | {key for key, _ in self.ledger.items()}

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Seconds until ``key`` wants to be woken again, None for "not before something happens".

        Raises :class:`RetryLater` and ``FencedError``.
        """
        self.ledger.at_epoch(self._epoch())
        stored = self._store.get(key)
        affected = self.index.update(key, stored)
        try:
            return await self._passes(key)
        except StoreError as error:
            if error.retryable:
                raise RetryLater(str(error), soon=error.soon) from error
            _log.error("reconcile.store_refused", object=str(key), error=str(error))
            return None
        finally:
            for other in affected:  # only now: a row that this object gives up is free for them
                self.notify(other)

    async def sweep_workloads(self, retained: Collection[ObjectKey]) -> int:
        """Removes every workload that no object asks for any more. Returns how many there were; raises
        :class:`DeploymentError`.

        What an Extension owns goes with it by itself, so a workload without an object is of interest only
        where nobody owns it. ``retained`` are the objects that are gone and left theirs behind on purpose.
        """
        if self._deployments is None:
            return 0
        swept = 0
        for found in self._deployments.workloads():
            key = ObjectKey("Extension", found.namespace, found.name)
            stored = self._store.get(key)
            if stored is None:
                orphan = not (found.owned or found.retained or key in retained)
            else:  # one that status knows of is the reconcile's own business
                orphan = found.owned and _asks_for_none(stored) and not stored.status.get("workloadHash")
            if orphan:
                _log.warning("drift.orphan_workload", object=str(key))
                await self._deployments.delete(found.namespace, found.name)
                swept += 1
        return swept

    async def _passes(self, key: ObjectKey) -> float | None:
        attempts = Attempts()
        view = await self._gatherer.gather(key, attempts, self._now())
        if view is None:
            await self._bury(key)
            return None
        attempts = view.attempts
        view = await self._begun(key, view)
        for _ in range(MAX_STEPS):
            plan = decide(view, self._settings)
            if plan.idle:
                return plan.wait if plan.wait > 0 else await self._settled(key, view, plan)
            if plan.remember:
                await self._store.write_status(key, {**_stored_status(self._store, view), **plan.remember})
            attempts = await self._actor.carry_out(key, plan, attempts)
            if attempts.finalizer is False:
                return None
            if plan.writes and _serves(attempts) and not view.forced and self.crowded():
                return self._settings.patience_s
            if plan.only_finalizer:  # nothing that is said depends on it
                return plan.wait if plan.wait > 0 else await self._settled(key, view, plan)
            view = await self._gatherer.gather(key, attempts, self._now())
            if view is None:
                raise RetryLater("the object went away while it was reconciled")
            attempts = view.attempts
        raise RetryLater(f"no rest after {MAX_STEPS} steps")

    async def _settled(self, key: ObjectKey, view: View, plan: Plan) -> float | None:
        """Nothing is left to do: writes the status, and says when to look again."""
        if await self._actor.publish(key, _stored_status(self._store, view), plan):
            for other in self.index.update(key, self._store.get(key)):
                self.notify(other)
        if plan.failed is not None:
            raise RetryLater(plan.failed)
        return plan.requeue

    async def _begun(self, key: ObjectKey, view: View) -> View:
        """First sight is told at once, but not to a crowd, whose objects say ``Pending`` of themselves, and
        not where the row was written in an earlier pass: what is told then is the outcome. A forced pass
        takes nothing as known.
        """
        if view.unseen and not view.object.metadata.deleting and not _is_served(view) and not self.crowded():
            await self._store.write_status(key, first_sight(view))
        if view.forced and not view.suspended:
            self.ledger.forget(key)
            return replace(view, row=None)
        return view

    async def _bury(self, key: ObjectKey) -> None:
        """An object that is gone without having said good-bye: a file that was removed, a finalizer torn off
        by hand.
        """
        row = self.ledger.get(key)
        if row is None or row.record.namespace != key.namespace or _retained(row):
            self.ledger.forget(key)
            return
        record = row.record
        remove = Remove(key.kind, record.id, record.uid, record.generation, changed_by=_GONE)
        attempts = await self._actor.write(key, (remove,), Attempts())
        if attempts.registry_fault is not None:
            raise RetryLater(attempts.registry_fault)
        if key.kind == "Extension" and self._deployments is not None:
            try:
                await self._deployments.delete(key.namespace, key.name)
            except DeploymentError as error:
                raise RetryLater(str(error)) from error


_GONE = "beamline-operator (the object is gone)"


def _asks_for_none(stored: StoredObject) -> bool:
    return (
        isinstance(stored, Extension)
        and stored.spec.workload is None
        and not stored.spec.suspend
        and not stored.metadata.deleting
    )


def _is_served(view: View) -> bool:
    return view.row is not None and view.row.record.generation == view.object.metadata.generation


def _retained(row: Row) -> bool:
    return getattr(row.record, "spec", {}).get("deletionPolicy") == "Retain"


def _stored_status(store: ObjectStore, view: View) -> dict[str, object]:
    current = store.get(view.object.key)
    return dict((current or view.object).status)


def _serves(attempts: Attempts) -> bool:
    """Whether the registry holds what was written into it last."""
    return attempts.write is not None and attempts.write.outcome in {Outcome.WRITTEN, Outcome.UNCHANGED}


def _nobody(_: ObjectKey) -> None:
    """Nobody listens."""
