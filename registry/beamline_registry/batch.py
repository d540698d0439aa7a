"""Decides what a batch of writes does to the registry: pure, and shared by the fake and PostgreSQL.

Both adapters hold the revision counter's lock while they plan, so ``stored`` can't move under the decision.
Writes take effect one after the other: a Remove frees its id and its subject for an Upsert later in the
batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from beamline_contract.objects import Kind
from beamline_contract.projection import ExtensionRecord, PolicyRecord

from . import instants
from .canonical import NotStorableError, canonical, stored_form
from .chain import AuditDraft
from .changes import Record, changes_between, digest, same_content
from .port import (
    AuditAction,
    InvalidRecordError,
    Note,
    Outcome,
    Remove,
    Retain,
    RowIdentity,
    Upsert,
    Write,
    WriteResult,
)

Key: TypeAlias = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What to do, in this order: delete ``cleared``, put ``rows``, leave ``tombstones``, append ``audit``.

    ``revision`` is the registry's after the batch, and that of every row in ``rows``.
    """

    results: list[WriteResult]
    revision: int
    cleared: tuple[Key, ...]
    rows: tuple[Record, ...]
    tombstones: tuple[Key, ...]
    audit: tuple[AuditDraft, ...]

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.rows or self.tombstones or self.audit)


def kind_of(record: Record) -> Kind:
    """The kind of object that a record was made from."""
    return "Extension" if isinstance(record, ExtensionRecord) else "RoutingPolicy"


def key_of(record: Record) -> Key:
    """Under what a record is stored."""
    return (kind_of(record), record.id)


def identity_of(record: Record) -> RowIdentity:
    """A row as an inventory with contents lists it."""
    whose = (record.uid, record.generation, record.namespace, record.name)
    return RowIdentity(kind_of(record), record.id, *whose, _is_retained(record), digest(record))


def _is_retained(record: Record) -> bool:
    return isinstance(record, ExtensionRecord) and record.spec.get("deletionPolicy") == "Retain"


def storable(writes: Sequence[Write]) -> list[Write]:
    """The writes with every record as the registry will give it back. Raises :class:`InvalidRecordError`."""
    return [_storable(write) for write in writes]


def _storable(write: Write) -> Write:
    who = _text(write.changed_by)
    if isinstance(write, Upsert):
        return replace(write, record=_stored(write.record), changed_by=who)
    if isinstance(write, Note):
        try:
            return replace(write, changes=stored_form(write.changes), changed_by=who)
        except NotStorableError as error:
            raise InvalidRecordError(write.kind, write.id, str(error)) from error
    return replace(write, changed_by=who)


def plan_batch(writes: Sequence[Write], stored: Iterable[Record], revision: int, now: datetime) -> BatchPlan:
    """The plan for ``writes`` (from :func:`storable`). ``stored``: every row that shares an id or subject."""
    state = _State({key_of(record): record for record in stored}, revision, now)
    results = [state.take(write) for write in writes]
    rows = tuple(state.rows[key] for key in state.touched if key in state.rows)
    return BatchPlan(
        results=results,
        revision=revision + 1 if state.touched else revision,
        cleared=tuple(state.cleared),
        rows=rows,
        tombstones=tuple(key for key in state.touched if key not in state.rows),
        audit=tuple(state.audit),
    )


class _State:
    """The registry as it will be after the writes so far."""

    def __init__(self, rows: dict[Key, Record], revision: int, now: datetime) -> None:
        self.rows = rows
        self.touched: dict[Key, None] = {}
        self.cleared: dict[Key, None] = {}
        self.audit: list[AuditDraft] = []
        self._subjects = {row.subject: key for key, row in rows.items() if isinstance(row, ExtensionRecord)}
        self._revision = revision
        self._now = now

    def take(self, write: Write) -> WriteResult:
        if isinstance(write, Upsert):
            return self.put(write)
        if isinstance(write, Retain):
            return self.retain(write)
        return self.remove(write) if isinstance(write, Remove) else self.note(write)

    def note(self, write: Note) -> WriteResult:
        stored = self.rows.get((write.kind, write.id))
        if stored is None:
            return WriteResult(Outcome.UNCHANGED, self._revision)
        self._note("updated", stored, write, write.changes, act=True)
        return WriteResult(Outcome.NOTED, self._revision)

    def put(self, write: Upsert) -> WriteResult:
        record = write.record
        key = key_of(record)
        stored = self.rows.get(key)
        if stored is not None and not _same_object(stored, record):
            return _conflict(stored)
        if stored is not None and record.generation < stored.generation:
            return WriteResult(Outcome.STALE, stored.revision)
        if isinstance(record, ExtensionRecord) and (holder := self._holder_of_subject(record)) is not None:
            return _conflict(holder)
        if stored is not None and same_content(stored, record):
            return WriteResult(Outcome.UNCHANGED, stored.revision)
        created_at = record.created_at or (
            stored.created_at if stored is not None else instants.spell(self._now)
        )
        self._forget_subject(stored)
        if isinstance(record, ExtensionRecord):
            self._subjects[record.subject] = key
        self.rows[key] = replace(record, revision=self._revision + 1, created_at=created_at)
        self.touched[key] = None
        self._note(_action(stored, record), record, write, changes_between(stored, record))
        return WriteResult(Outcome.WRITTEN, self._revision + 1)

    def remove(self, write: Remove) -> WriteResult:
        key: Key = (write.kind, write.id)
        stored = self.rows.get(key)
        if stored is None or (write.uid and write.uid != stored.uid):
            return WriteResult(Outcome.UNCHANGED, self._revision)
        if write.uid and write.generation < stored.generation:
            return WriteResult(Outcome.STALE, stored.revision)
        del self.rows[key]
        self._forget_subject(stored)
        self.touched[key] = None
        self.cleared[key] = None
        gone = replace(stored, generation=max(write.generation, stored.generation))
        self._note("deleted", gone, write, changes_between(stored, None))
        return WriteResult(Outcome.WRITTEN, self._revision + 1)

    def retain(self, write: Retain) -> WriteResult:
        stored = self.rows.get((write.kind, write.id))
        if not isinstance(stored, ExtensionRecord) or stored.uid != write.uid or _is_retained(stored):
            return WriteResult(Outcome.UNCHANGED, self._revision)
        kept = replace(
            stored,
            spec={**stored.spec, "deletionPolicy": "Retain"},
            generation=max(write.generation, stored.generation),
        )
        return self.put(Upsert(kept, write.changed_by, write.request_id))

    def _holder_of_subject(self, record: ExtensionRecord) -> Record | None:
        key = self._subjects.get(record.subject)
        return self.rows[key] if key is not None and key != key_of(record) else None

    def _forget_subject(self, row: Record | None) -> None:
        if isinstance(row, ExtensionRecord):
            self._subjects.pop(row.subject, None)

    def _note(
        self,
        action: AuditAction,
        record: Record,
        write: Write,
        changes: Mapping[str, object],
        *,
        act: bool = False,
    ) -> None:
        self.audit.append(
            AuditDraft(
                kind=kind_of(record),
                object_id=record.id,
                uid=record.uid,
                generation=record.generation,
                action=action,
                changed_by=write.changed_by,
                changes=dict(changes),
                request_id=_text(write.request_id),
                act=act,
            )
        )


def _same_object(stored: Record, record: Record) -> bool:
    return (stored.uid, stored.namespace, stored.name) == (record.uid, record.namespace, record.name)


def _conflict(holder: Record) -> WriteResult:
    return WriteResult(Outcome.CONFLICT, holder.revision, f"{holder.namespace}/{holder.name}")


def _action(stored: Record | None, record: Record) -> AuditAction:
    if stored is None:
        return "created"
    if (
        isinstance(stored, ExtensionRecord)
        and isinstance(record, ExtensionRecord)
        and stored.enabled != record.enabled
    ):
        return "enabled" if record.enabled else "disabled"
    return "updated"


def _text(words: str) -> str:
    return words.replace("\0", "").encode(errors="replace").decode()


def _stored(record: Record) -> Record:
    created = instants.parse(record.created_at)
    created_at = instants.spell(created) if created is not None else ""
    try:
        canonical([record.uid, record.namespace, record.name, record.id])
        if isinstance(record, PolicyRecord):
            return replace(record, policy=stored_form(record.policy), created_at=created_at)
        canonical([record.subject, record.type, record.version])
        return replace(
            record,
            config=stored_form(record.config),
            metadata=stored_form(record.metadata),
            spec=stored_form(record.spec),
            created_at=created_at,
        )
    except NotStorableError as error:
        raise InvalidRecordError(kind_of(record), record.id, str(error)) from error
