"""The registry as its users see it: three small ports, and what goes through them.

A writer (the operator's leader, or ``beamline up``) projects objects into rows; a reader (a router) asks what
changed since a revision; anybody entitled reads the audit log. The in-memory fake (:mod:`.memory`) and
PostgreSQL (:mod:`.postgres`) pass the same suite, ``tests/contract/test_registry.py``.

Order: every batch of writes is one transaction that bumps a single-row counter, so commit order is revision
order and "what is newer than revision N" misses nothing. Fencing: a write carries the lease epoch of its
writer; once a newer epoch has been acquired, older writers get :class:`FencedError`, and a generation older
than the stored one of the same uid changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from beamline_contract.objects import Kind
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_contract.reports import HealthDelta

AuditAction = Literal["created", "updated", "deleted", "enabled", "disabled"]


class RegistryError(Exception):
    """Base of what a registry raises."""


class RegistryUnavailableError(RegistryError):
    """The database does not answer, or not in time. The same call may succeed later."""


class RegistryDeniedError(RegistryUnavailableError):
    """The database refuses the credentials, or the role lacks a privilege: somebody has to change it."""


class FencedError(RegistryError):
    """The epoch is not the newest one: this writer is no longer the leader and must stop writing."""


class InvalidRecordError(RegistryError):
    """A record holds what JSON in a database can't: U+0000, half a surrogate pair, NaN, a huge integer.

    Nothing of the batch was written; ``kind`` and ``id`` name the record to leave out.
    """

    def __init__(self, kind: Kind, object_id: str, reason: str) -> None:
        super().__init__(f"{kind} {object_id}: {reason}")
        self.kind = kind
        self.id = object_id


class SchemaError(RegistryError):
    """The database's schema is older or newer than this program; the message names the command that helps."""


class SchemaPendingError(SchemaError):
    """A migration is still to come: the database is empty or older, so whoever can wait waits."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """Puts a record in place of what the registry holds under its id; ``changed_by`` is for the audit log."""

    record: ExtensionRecord | PolicyRecord
    changed_by: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Remove:
    """Takes a record out and leaves a tombstone, where the stored uid is this one (or ``uid`` is empty)."""

    kind: Kind
    id: str
    uid: str
    generation: int
    changed_by: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Retain:
    """Lets the row of the Extension ``uid`` say that it outlives its object, whatever else it says."""

    id: str
    uid: str
    generation: int
    changed_by: str
    request_id: str = ""
    kind: Kind = "Extension"


@dataclass(frozen=True, slots=True)
class Note:
    """Appends a row to the audit log and changes nothing else: what somebody did to an object that no field
    of its row shows, such as isolating it. Without a row of that id nothing is noted.

    Equal acts are two unless they are of one ``request_id``; then the second is a repetition.
    """

    kind: Kind
    id: str
    changes: Mapping[str, Any]
    changed_by: str
    request_id: str = ""


Write: TypeAlias = Upsert | Remove | Retain | Note


class Outcome(StrEnum):
    """What became of one write."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    """The registry holds exactly this already (or, for Remove and Retain, nothing): no revision, no audit
    row.
    """
    STALE = "stale"
    """The registry holds a newer generation of the same object."""
    CONFLICT = "conflict"
    """The id (of another uid) or the subject is taken by an object that still exists."""
    NOTED = "noted"
    """The audit log says so; no row changed, so there is no new revision."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """``revision`` is where the stored content last changed; ``holder`` is "namespace/name" on CONFLICT."""

    outcome: Outcome
    revision: int
    holder: str | None = None


class RowIdentity(NamedTuple):
    """Whose row it is, and what a full compare with the objects needs of its content."""

    kind: Kind
    id: str
    uid: str
    generation: int
    namespace: str
    name: str
    retained: bool = False
    """The row says deletionPolicy Retain: it outlives its object, and no full compare removes it."""
    digest: str = ""
    """Of the content, as :func:`.changes.digest` makes it; empty where it was not asked for."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A removed row."""

    kind: Kind
    id: str
    revision: int


@dataclass(frozen=True, slots=True)
class Delta:
    """Everything newer than the revision that was asked for, read in one consistent view.

    With ``full`` the records are all there are and replace what the reader holds: it asked from 0, was too
    far behind for the tombstones that are kept, or was ahead of a database that somebody replaced.

    Lists, because one that has grown is old to the garbage collector; a tuple made of thousands of records
    would be young, and every collection of young objects would walk all of it.
    """

    revision: int
    full: bool
    extensions: list[ExtensionRecord] = field(default_factory=list)
    policies: list[PolicyRecord] = field(default_factory=list)
    removed: list[Tombstone] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One row of the audit log. ``changes`` is ``{field: {"from": ..., "to": ...}}``, times are RFC 3339."""

    sequence: int
    kind: Kind
    object_id: str
    uid: str
    generation: int
    action: AuditAction
    changed_by: str
    changes: Mapping[str, Any]
    timestamp: str
    previous_hash: str
    hash: str
    request_id: str = ""
    """The request of the admin API that made the change; empty for any other way."""


@dataclass(frozen=True, slots=True)
class Health:
    """Health of an extension. Window sums cover the last five minutes; no calls there, no ``score``."""

    extension_id: str
    success_count: int = 0
    failure_count: int = 0
    avg_latency_ms: float = 0.0
    last_success: str | None = None
    last_failure: str | None = None
    window_success: int = 0
    window_failure: int = 0

    @property
    def score(self) -> float | None:
        """success / (success + failure) x 100 over the last five minutes (contract.md, "Registry")."""
        calls = self.window_success + self.window_failure
        return 100.0 * self.window_success / calls if calls else None


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Filters; None means any. Newest first, ``before`` a sequence number for paging; with ``after`` oldest
    first, from what follows that number.

    ``only`` are the uids of the objects that the asker may see. ``text`` is found, whatever the case, in
    kind, id, action, who, request id and what changed; no character of it is special.
    """

    kind: Kind | None = None
    object_id: str | None = None
    before: int | None = None
    limit: int = 100
    text: str | None = None
    action: AuditAction | None = None
    after: int | None = None
    only: Collection[str] | None = None


class RegistryReader(Protocol):
    """What a router needs."""

    async def read(self, since: int) -> Delta:
        """Everything newer than ``since``; 0 asks for all. Raises :class:`RegistryUnavailableError`."""
        ...


class RegistryWriter(Protocol):
    """What a reconcile core needs."""

    async def acquire_epoch(self, holder: str) -> int:
        """A new epoch, higher than any before; fences every earlier holder from now on.

        A write that is being committed is waited for, so nothing older lands after this returns.
        """
        ...

    async def write(self, writes: Sequence[Write], *, epoch: int) -> list[WriteResult]:
        """All writes in one transaction, one result each, in order.

        Raises :class:`FencedError` or :class:`InvalidRecordError` (nothing written), or
        :class:`RegistryUnavailableError` (it is unknown whether it was written: writing again is safe,
        because equal content is UNCHANGED, and a row that repeats the newest one of its object is left out).
        """
        ...

    async def fold_health(self, deltas: Sequence[HealthDelta], *, epoch: int) -> None:
        """Adds routers' deltas to ``extension_health``; unknown ids are ignored."""
        ...

    async def inventory(self, *, contents: bool = False) -> list[RowIdentity]:
        """Whose rows the registry holds, in one consistent view, by kind and id.

        With ``contents`` each has the digest of what it says, which takes as long as reading all of them.
        """
        ...

    async def compact(self, keep: int, *, epoch: int) -> int:
        """Forgets tombstones older than the newest ``keep`` revisions; returns how many.

        A reader that is further behind gets a full :class:`Delta`.
        """
        ...


class RegistryAudit(Protocol):
    """What an auditor needs."""

    async def audit(self, query: AuditQuery) -> list[AuditRecord]:
        """Rows of the audit log, newest first."""
        ...

    async def verify_audit(self) -> int:
        """Recomputes the hash chain; returns the number of rows. Raises :class:`AuditBrokenError`."""
        ...

    async def health(self, extension_id: str) -> Health | None:
        """Health of one extension, None where it has never been called."""
        ...

    async def healths(self) -> list[Health]:
        """Health of every extension that was ever called, by id, in one consistent view."""
        ...


@dataclass(frozen=True, slots=True)
class AuditFault:
    """The first row where the chain does not hold."""

    sequence: int
    reason: str


class AuditBrokenError(RegistryError):
    """The audit log was edited, shortened or reordered."""

    def __init__(self, fault: AuditFault) -> None:
        super().__init__(f"audit row {fault.sequence}: {fault.reason}")
        self.fault = fault
