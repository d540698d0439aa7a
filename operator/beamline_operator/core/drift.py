"""The full compare of rows with objects, in all three directions: a row that is gone, one that somebody
changed, one that nobody asked for.

What a row has to say is known from the ledger: the record that this process wrote last. So a change by hand
is found by its content, at whatever generation it claims to be, and the last good row of an object that is
broken now is put back as well. A row whose object has not been written in this term is no business of the
compare: its reconcile writes it, and the registry compares.

The inventory is of a moment that is over. A key that was written since, or is in a worker's hands, or waits
for another attempt, is left to the next compare: its row and its ledger may tell of two different moments.
A suspended object is left alone, drift included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from beamline_contract.conditions import EventReason
from beamline_contract.names import FIELD_MANAGER, object_id
from beamline_contract.objects import KINDS, BrokenObject, ObjectKey
from beamline_registry.changes import digest
from beamline_registry.port import Outcome, RegistryWriter, Remove, RowIdentity, Upsert, Write

from .ports import Event, ObjectStore
from .queue import WorkQueue
from .reconciler import Reconciler
from .view import Row

AT_A_TIME: Final = 64
"""Rows compared before the loop turns."""
_SWEEP: Final = f"{FIELD_MANAGER} (orphan sweep)"
_REPAIR: Final = f"{FIELD_MANAGER} (full compare)"

_log = structlog.get_logger()


class RowCompare:
    """Compares what the registry holds with what it should hold, and repairs it."""

    def __init__(
        self, store: ObjectStore, registry: RegistryWriter, reconciler: Reconciler, queue: WorkQueue
    ) -> None:
        self._store = store
        self._registry = registry
        self._reconciler = reconciler
        self._queue = queue
        self.retained: set[ObjectKey] = set()
        """Objects that are gone and left their row behind on purpose, as of the last compare."""

    async def run(self, *, contents: bool) -> int:
        """Returns how many rows had to be repaired. ``contents`` looks into them, else at whose they are.

        Raises ``RegistryError``.
        """
        known = dict(self._reconciler.ledger.items())
        inventory = await self._registry.inventory(contents=contents)
        present = {stored.key for kind in KINDS for stored in self._store.list(kind)}
        self.retained = {_key(row) for row in inventory if row.retained}
        orphans = [row for row in inventory if _is_orphan(row, present)]
        repaired = await self._remove(orphans)
        held = {_key(row): row for row in inventory if row.id == object_id(row.name)}
        return repaired + await self._put_back(known, held, contents)

    async def _remove(self, orphans: Iterable[RowIdentity]) -> int:
        removed = 0
        for row in orphans:
            _log.warning("drift.orphan_row", object=str(_key(row)), id=row.id)
            remove = Remove(row.kind, row.id, row.uid, row.generation, changed_by=_SWEEP)
            (result,) = await self._reconciler.batcher.submit(remove)
            removed += result.outcome is Outcome.WRITTEN
        return removed

    async def _put_back(
        self, known: Mapping[ObjectKey, Row], held: Mapping[ObjectKey, RowIdentity], contents: bool
    ) -> int:
        repaired = 0
        for number, (key, row) in enumerate(known.items(), start=1):
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
            found = held.get(key)
            if not _as_left(row, found, contents) and self._is_still(key, row):
                repaired += await self._repair(key, row, found)
        return repaired

    def _is_still(self, key: ObjectKey, row: Row) -> bool:
        """Whether nothing happened to ``key`` since ``row`` was known, and nothing is about to."""
        stored = self._store.get(key)
        return (
            stored is not None
            and not stored.metadata.deleting
            and (isinstance(stored, BrokenObject) or not stored.spec.suspend)
            and self._reconciler.ledger.get(key) is row
            and not self._queue.busy(key)
        )

    async def _repair(self, key: ObjectKey, row: Row, found: RowIdentity | None) -> bool:
        record = row.record
        _log.warning(
            "drift.row_missing" if found is None else "drift.row_edited", object=str(key), id=record.id
        )
        writes: list[Write] = [Upsert(record, changed_by=_REPAIR)]
        if found is not None and (found.uid != record.uid or found.generation > record.generation):
            # Neither another object nor a newer generation: nobody but this process may write one.
            writes.insert(0, Remove(key.kind, record.id, "", 0, changed_by=_REPAIR))
        result = (await self._reconciler.batcher.submit(*writes))[-1]
        if self._reconciler.ledger.get(key) is row:
            if result.outcome in {Outcome.WRITTEN, Outcome.UNCHANGED}:
                since = self._reconciler.monotonic()
                self._reconciler.ledger.put(key, Row(record, result.revision, since))
            else:
                self._reconciler.ledger.forget(key)
        self._queue.add(key)
        if result.outcome is not Outcome.WRITTEN:
            return False
        told = f"Somebody else {'removed' if found is None else 'changed'} its row in the registry: "
        told += f"written again (revision {result.revision}); the audit log has what differed."
        await self._store.record_event(key, Event(EventReason.DRIFT_REPAIRED, told, "Warning"))
        return True


def _key(row: RowIdentity) -> ObjectKey:
    return ObjectKey(row.kind, row.namespace, row.name)


def _is_orphan(row: RowIdentity, present: set[ObjectKey]) -> bool:
    """A row of no object, or a second one under an id that is not its object's."""
    if row.id != object_id(row.name):
        return True
    return _key(row) not in present and not row.retained


def _as_left(row: Row, found: RowIdentity | None, contents: bool) -> bool:
    record = row.record
    if found is None or (found.uid, found.generation) != (record.uid, record.generation):
        return False
    return not contents or found.digest == digest(record)
