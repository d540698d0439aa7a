"""The registry in memory: a fake with the semantics of PostgreSQL, for tests and whoever builds on the port.

One process, one event loop. No method awaits anything, so each is atomic, as a transaction is. ``outage``
makes every call raise, the way a database that went away does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from beamline_contract.objects import Kind
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_contract.reports import HealthDelta

from . import instants
from .batch import Key, identity_of, key_of, plan_batch, storable
from .chain import AuditDraft, Head, check_end, follow, link
from .changes import Record
from .port import (
    AuditQuery,
    AuditRecord,
    Delta,
    FencedError,
    Health,
    RegistryError,
    RowIdentity,
    Tombstone,
    Write,
    WriteResult,
)
from .tally import WINDOW_MINUTES, Tally, later, tally


@dataclass(slots=True)
class _Sums:
    success: int = 0
    failure: int = 0
    latency_ms: float = 0.0
    last_success: datetime | None = None
    last_failure: datetime | None = None
    minutes: dict[int, tuple[int, int]] = field(default_factory=dict)


class MemoryRegistry:
    """Reader, writer and audit in one. ``clock`` gives the wall time of audit rows and health buckets."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.outage: RegistryError | None = None
        self._clock = clock
        self._rows: dict[Key, Record] = {}
        self._tombstones: dict[Key, int] = {}
        self._revision = 0
        self._horizon = 0
        self._epoch = 0
        self._audit: list[AuditRecord] = []
        self._head = Head()
        self._health: dict[str, _Sums] = {}

    async def read(self, since: int) -> Delta:
        self._answer()
        full = since <= 0 or since < self._horizon or since > self._revision
        rows = [self._rows[key] for key in sorted(self._rows) if full or self._rows[key].revision > since]
        return Delta(
            revision=self._revision,
            full=full,
            extensions=[row for row in rows if isinstance(row, ExtensionRecord)],
            policies=[row for row in rows if isinstance(row, PolicyRecord)],
            removed=[]
            if full
            else [
                Tombstone(kind, object_id, revision)
                for (kind, object_id), revision in sorted(self._tombstones.items())
                if revision > since
            ],
        )

    async def acquire_epoch(self, holder: str) -> int:
        self._answer()
        self._epoch += 1
        return self._epoch

    async def write(self, writes: Sequence[Write], *, epoch: int) -> list[WriteResult]:
        self._answer()
        ready = storable(writes)
        self._fence(epoch)
        now = self._clock()
        plan = plan_batch(ready, self._rows.values(), self._revision, now)
        for key in plan.cleared:
            self._rows.pop(key, None)
            self._health.pop(key[1], None) if key[0] == "Extension" else None
        for row in plan.rows:
            self._rows[key_of(row)] = row
            self._tombstones.pop(key_of(row), None)
        self._tombstones.update(dict.fromkeys(plan.tombstones, plan.revision))
        self._append(plan.audit, instants.spell(now))
        self._revision = plan.revision
        return plan.results

    async def fold_health(self, deltas: Sequence[HealthDelta], *, epoch: int) -> None:
        self._answer()
        self._fence(epoch)
        minute = self._minute()
        for entry in tally(deltas):
            if ("Extension", entry.extension_id) in self._rows:
                _fold(self._health.setdefault(entry.extension_id, _Sums()), entry, minute)

    async def inventory(self, *, contents: bool = False) -> list[RowIdentity]:
        self._answer()
        found = [identity_of(row) for _, row in sorted(self._rows.items())]
        return found if contents else [row._replace(digest="") for row in found]

    def tamper(self, kind: Kind, object_id: str, row: Record | None) -> None:
        """What somebody with all rights does to a table by hand: no revision, no audit row, no tombstone."""
        if row is None:
            del self._rows[kind, object_id]
        else:
            self._rows[kind, object_id] = row

    async def compact(self, keep: int, *, epoch: int) -> int:
        self._answer()
        self._fence(epoch)
        self._horizon = max(self._horizon, self._revision - keep)
        forgotten = [key for key, revision in self._tombstones.items() if revision <= self._horizon]
        for key in forgotten:
            del self._tombstones[key]
        return len(forgotten)

    async def audit(self, query: AuditQuery) -> list[AuditRecord]:
        self._answer()
        found = [
            row
            for row in (reversed(self._audit) if query.after is None else self._audit)
            if query.kind in {None, row.kind}
            and query.object_id in {None, row.object_id}
            and (query.before is None or row.sequence < query.before)
            and (query.after is None or row.sequence > query.after)
            and (query.only is None or row.uid in query.only)
            and query.action in {None, row.action}
            and _says(row, query.text or "")
        ]
        return found[: max(query.limit, 0)]

    async def verify_audit(self) -> int:
        self._answer()
        found = follow(Head(), self._audit)
        check_end(found, self._head, self._audit[-1].sequence if self._audit else 0)
        return found.rows

    async def health(self, extension_id: str) -> Health | None:
        self._answer()
        sums = self._health.get(extension_id)
        return None if sums is None else self._health_of(extension_id, sums)

    async def healths(self) -> list[Health]:
        self._answer()
        return [self._health_of(extension_id, sums) for extension_id, sums in sorted(self._health.items())]

    def _health_of(self, extension_id: str, sums: _Sums) -> Health:
        oldest = self._minute() - WINDOW_MINUTES
        recent = [counts for minute, counts in sums.minutes.items() if minute > oldest]
        calls = sums.success + sums.failure
        return Health(
            extension_id=extension_id,
            success_count=sums.success,
            failure_count=sums.failure,
            avg_latency_ms=sums.latency_ms / calls if calls else 0.0,
            last_success=instants.spell(sums.last_success) if sums.last_success else None,
            last_failure=instants.spell(sums.last_failure) if sums.last_failure else None,
            window_success=sum(success for success, _ in recent),
            window_failure=sum(failure for _, failure in recent),
        )

    def _answer(self) -> None:
        if self.outage is not None:
            raise self.outage

    def _fence(self, epoch: int) -> None:
        if epoch != self._epoch:
            raise FencedError(f"epoch {epoch} may not write: the registry is at epoch {self._epoch}")

    def _append(self, drafts: Sequence[AuditDraft], timestamp: str) -> None:
        for draft in drafts:
            newest = next((row for row in reversed(self._audit) if row.uid == draft.uid), None)
            if not draft.repeats(newest):
                record, self._head = link(self._head, draft, len(self._audit) + 1, timestamp)
                self._audit.append(record)

    def _minute(self) -> int:
        return int(self._clock().timestamp()) // 60


def _fold(sums: _Sums, entry: Tally, minute: int) -> None:
    sums.success += entry.success
    sums.failure += entry.failure
    sums.latency_ms += entry.latency_ms_sum
    sums.last_success = later(sums.last_success, entry.last_success)
    sums.last_failure = later(sums.last_failure, entry.last_failure)
    success, failure = sums.minutes.get(minute, (0, 0))
    sums.minutes = {at: counts for at, counts in sums.minutes.items() if at > minute - WINDOW_MINUTES}
    sums.minutes[minute] = (success + entry.success, failure + entry.failure)


def _says(row: AuditRecord, text: str) -> bool:
    changes = json.dumps(row.changes, ensure_ascii=False)
    said = (row.kind, row.object_id, row.action, row.changed_by, row.request_id, changes)
    return text.lower() in " ".join(said).lower()
