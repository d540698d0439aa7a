"""The hash chain of the audit log: each row's hash covers its fields and the hash of the row before.

Whoever edits, reorders or removes a row breaks the chain at that place. Cutting off the *newest* rows leaves
a valid chain, so the registry also keeps the number of rows and the newest hash (:class:`Head`), moved in the
same transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from beamline_contract.objects import Kind

from .canonical import canonical
from .port import AuditAction, AuditBrokenError, AuditFault, AuditRecord

GENESIS: Final = ""
"""What stands for the previous hash in the first row."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: number of rows, and the newest hash."""

    rows: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class AuditDraft:
    """An audit row that has no place in the chain yet."""

    kind: Kind
    object_id: str
    uid: str
    generation: int
    action: AuditAction
    changed_by: str
    changes: dict[str, Any]
    request_id: str = ""
    act: bool = False
    """Something that was done, and not a new content: the same may be done again, by another request."""

    def repeats(self, newest: AuditRecord | None) -> bool:
        """Whether the newest row of the same object says this already, so that writing again adds nothing.

        Two equal changes in a row can't happen: what the first one changed *to* is what the next one changes
        *from*. Two different ones of one generation can, where a projection depends on other objects. A
        repair of what was done to a table by hand may equal the change before it; its author tells.
        """
        return newest is not None and (
            (newest.generation, newest.action) == (self.generation, self.action)
            and canonical(newest.changes) == canonical(self.changes)
            and newest.changed_by == self.changed_by
            and (not self.act or newest.request_id == self.request_id)
        )


def hash_of(record: AuditRecord) -> str:
    """SHA-256 (hex) over the canonical JSON of every field but the hash itself."""
    fields = {
        "sequence": record.sequence,
        "kind": record.kind,
        "object_id": record.object_id,
        "uid": record.uid,
        "generation": record.generation,
        "action": record.action,
        "changed_by": record.changed_by,
        "changes": record.changes,
        "timestamp": record.timestamp,
        "previous_hash": record.previous_hash,
    }
    if record.request_id:  # rows from before there were any keep their hash
        fields["request_id"] = record.request_id
    return hashlib.sha256(canonical(fields)).hexdigest()


def link(head: Head, draft: AuditDraft, sequence: int, timestamp: str) -> tuple[AuditRecord, Head]:
    """The row that ``draft`` becomes after ``head``, and the head after it."""
    unsigned = AuditRecord(
        sequence=sequence,
        kind=draft.kind,
        object_id=draft.object_id,
        uid=draft.uid,
        generation=draft.generation,
        action=draft.action,
        changed_by=draft.changed_by,
        changes=draft.changes,
        timestamp=timestamp,
        previous_hash=head.hash,
        hash="",
        request_id=draft.request_id,
    )
    record = replace(unsigned, hash=hash_of(unsigned))
    return record, Head(head.rows + 1, record.hash)


def follow(head: Head, rows: Iterable[AuditRecord]) -> Head:
    """Checks ``rows``, oldest first, as the continuation of ``head``. Raises :class:`AuditBrokenError`."""
    for row in rows:
        if row.previous_hash != head.hash:
            raise AuditBrokenError(
                AuditFault(row.sequence, "does not follow the row before: rows are missing or reordered")
            )
        if hash_of(row) != row.hash:
            raise AuditBrokenError(AuditFault(row.sequence, "does not match its hash: it was edited"))
        head = Head(head.rows + 1, row.hash)
    return head


def check_end(found: Head, kept: Head, last_sequence: int) -> None:
    """The chain that was read must end where the registry says. Raises :class:`AuditBrokenError`."""
    if found != kept:
        raise AuditBrokenError(
            AuditFault(
                last_sequence,
                f"is the last of {found.rows} rows, but {kept.rows} were written: the newest are missing",
            )
        )
