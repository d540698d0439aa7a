"""The registry on PostgreSQL: reader, writer and audit.

Who is ordered with whom. Every transaction that writes begins by locking the one row of
``registry_revision``. That makes writers take turns, so commit order is revision order, the plan of a batch
can't be overtaken, and the audit chain has one end. Next it share-locks the one row of ``operator_epoch`` and
compares: a new leader's :meth:`PostgresRegistry.acquire_epoch` therefore waits for a write that is being
committed, and every write that begins afterwards sees the new epoch and is fenced. Readers take no locks at
all; they see a committed revision with all of its rows, or none of them.

The upserts repeat the generation rule in SQL. It can't fire after the plan, unless somebody writes behind our
back: then the transaction fails as a whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_contract.reports import HealthDelta

from . import instants
from .audit_log import verify
from .batch import BatchPlan, Key, identity_of, key_of, plan_batch, storable
from .chain import AuditDraft, Head, link
from .changes import Record
from .health_rows import fold, health_of, health_of_all
from .port import (
    AuditQuery,
    AuditRecord,
    FencedError,
    Health,
    RegistryError,
    RowIdentity,
    SchemaError,
    Upsert,
    Write,
    WriteResult,
)
from .reader import ROWS_AT_A_TIME, PostgresReader
from .rows import (
    EXTENSION,
    INSERT_AUDIT,
    POLICY,
    SELECT_AUDIT,
    SELECT_EXTENSIONS,
    SELECT_NEWEST_AUDIT,
    SELECT_POLICIES,
    UPSERT_EXTENSIONS,
    UPSERT_POLICIES,
    audit_of,
    audit_parameter,
    extension_of,
    parameter,
    policy_of,
)
from .tally import tally

if TYPE_CHECKING:
    from .database import Connection

_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Counter:
    """The locked row of ``registry_revision``, and the database's clock."""

    revision: int
    head: Head
    now: datetime


class PostgresRegistry(PostgresReader):
    """All three ports of :mod:`.port` on PostgreSQL. Needs the role ``beamline_operator``."""

    async def acquire_epoch(self, holder: str) -> int:
        """See :meth:`.port.RegistryWriter.acquire_epoch`."""
        async with self._database.transaction() as connection:
            epoch = await connection.fetchval(
                "UPDATE operator_epoch SET epoch = epoch + 1, holder = $1, acquired_at = now() "
                "RETURNING epoch",
                holder,
            )
        return int(epoch)

    async def write(self, writes: Sequence[Write], *, epoch: int) -> list[WriteResult]:
        """See :meth:`.port.RegistryWriter.write`."""
        ready = storable(writes)
        async with self._turn(epoch) as (connection, counter):
            stored = await _stored(connection, ready)
            plan = plan_batch(ready, stored, counter.revision, counter.now)
            if plan.changed:
                await _put(connection, plan)
                head = await _append(connection, plan.audit, counter)
                await connection.execute(
                    "UPDATE registry_revision "
                    "SET revision = $1, audit_rows = $2, audit_head = $3, updated_at = now()",
                    plan.revision, head.rows, head.hash,
                )  # fmt: skip
        return plan.results

    async def fold_health(self, deltas: Sequence[HealthDelta], *, epoch: int) -> None:
        """See :meth:`.port.RegistryWriter.fold_health`."""
        tallies = tally(deltas)
        async with self._turn(epoch) as (connection, _):
            await fold(connection, tallies)

    async def inventory(self, *, contents: bool = False) -> list[RowIdentity]:
        """See :meth:`.port.RegistryWriter.inventory`. Fetched in pages of one view."""
        if contents:
            return await self._inventory_of_contents()
        query = (
            "SELECT 'Extension' AS kind, id, uid, generation, namespace, name, "
            "coalesce(spec->>'deletionPolicy' = 'Retain', false) AS retained FROM extensions UNION ALL "
            "SELECT 'RoutingPolicy', id, uid, generation, namespace, name, false FROM routing_policies "
            "ORDER BY kind, id"
        )
        async with self._database.transaction("repeatable_read", readonly=True, bounded=False) as connection:
            return [RowIdentity(*row) async for row in connection.cursor(query, prefetch=_PAGE)]

    async def _inventory_of_contents(self) -> list[RowIdentity]:
        """A few rows at a time: the leader goes on reconciling meanwhile."""
        found: list[RowIdentity] = []
        async with self._database.transaction("repeatable_read", readonly=True, bounded=False) as connection:
            for query, record_of in ((SELECT_EXTENSIONS, extension_of), (SELECT_POLICIES, policy_of)):
                rows = connection.cursor(f"{query} ORDER BY id", prefetch=ROWS_AT_A_TIME)
                found += [identity_of(record_of(row)) async for row in rows]
        return found

    async def compact(self, keep: int, *, epoch: int) -> int:
        """See :meth:`.port.RegistryWriter.compact`."""
        async with self._turn(epoch) as (connection, counter):
            horizon = await connection.fetchval(
                "UPDATE registry_revision SET horizon = greatest(horizon, $1) RETURNING horizon",
                counter.revision - keep,
            )
            done = await connection.execute("DELETE FROM tombstones WHERE revision <= $1", horizon)
        return _count(done)

    async def audit(self, query: AuditQuery) -> list[AuditRecord]:
        """See :meth:`.port.RegistryAudit.audit`."""
        async with self._database.transaction(readonly=True) as connection:
            rows = await connection.fetch(
                f"{SELECT_AUDIT} WHERE ($1::text IS NULL OR kind = $1) "
                "AND ($2::text IS NULL OR extension_id = $2) AND ($3::bigint IS NULL OR id < $3) "
                "AND ($5::text = '' OR position(lower($5) IN lower(concat_ws(' ', kind, extension_id, "
                "action, changed_by, request_id, changes::text))) > 0) "
                "AND ($6::text IS NULL OR action = $6) AND ($7::bigint IS NULL OR id > $7) "
                "AND ($8::text[] IS NULL OR uid = ANY($8)) "
                f"ORDER BY id {'DESC' if query.after is None else 'ASC'} LIMIT $4",
                query.kind, query.object_id, query.before, max(query.limit, 0), query.text or "",
                query.action, query.after, None if query.only is None else list(query.only),
            )  # fmt: skip
        return list(map(audit_of, rows))

    async def verify_audit(self) -> int:
        """See :meth:`.port.RegistryAudit.verify_audit`. Reads the whole log in pages of one view."""
        async with self._database.transaction("repeatable_read", readonly=True, bounded=False) as connection:
            return await verify(connection)

    async def health(self, extension_id: str) -> Health | None:
        """See :meth:`.port.RegistryAudit.health`."""
        async with self._database.transaction(readonly=True) as connection:
            return await health_of(connection, extension_id)

    async def healths(self) -> list[Health]:
        """See :meth:`.port.RegistryAudit.healths`."""
        async with self._database.transaction(readonly=True) as connection:
            return await health_of_all(connection)

    @asynccontextmanager
    async def _turn(self, epoch: int) -> AsyncIterator[tuple[Connection, _Counter]]:
        """A writing transaction whose turn it is, by a writer that is still the leader."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT revision, audit_rows, audit_head FROM registry_revision FOR UPDATE"
            )
            newest = await connection.fetchrow(
                "SELECT epoch, holder, clock_timestamp() AS now FROM operator_epoch FOR SHARE"
            )
            if row is None or newest is None:
                raise SchemaError(
                    "the registry's counter row is missing: restore the database from a backup, "
                    "or run `beamline migrate` on an empty one"
                )
            if newest["epoch"] != epoch:
                raise FencedError(
                    f"epoch {epoch} may not write: the registry is at epoch {newest['epoch']}, "
                    f"which {newest['holder'] or 'another operator'} holds"
                )
            yield (
                connection,
                _Counter(row["revision"], Head(row["audit_rows"], row["audit_head"]), newest["now"]),
            )


async def _stored(connection: Connection, writes: Sequence[Write]) -> list[Record]:
    """Every row that shares an id or a subject with the writes."""
    keys = [key_of(write.record) if isinstance(write, Upsert) else (write.kind, write.id) for write in writes]
    extension_ids, policy_ids = _ids(keys, "Extension"), _ids(keys, "RoutingPolicy")
    subjects = [
        write.record.subject
        for write in writes
        if isinstance(write, Upsert) and isinstance(write.record, ExtensionRecord)
    ]
    records: list[Record] = []
    if extension_ids:
        query = f"{SELECT_EXTENSIONS} WHERE id = ANY($1::text[]) OR subject = ANY($2::text[])"
        records += map(extension_of, await connection.fetch(query, extension_ids, subjects))
    if policy_ids:
        records += map(
            policy_of, await connection.fetch(f"{SELECT_POLICIES} WHERE id = ANY($1::text[])", policy_ids)
        )
    return records


async def _put(connection: Connection, plan: BatchPlan) -> None:
    """Brings the tables where the plan wants them."""
    if gone := _ids(plan.cleared, "Extension"):
        await connection.execute("DELETE FROM extensions WHERE id = ANY($1::text[])", gone)
    if gone := _ids(plan.cleared, "RoutingPolicy"):
        await connection.execute("DELETE FROM routing_policies WHERE id = ANY($1::text[])", gone)
    extensions = [row for row in plan.rows if isinstance(row, ExtensionRecord)]
    policies = [row for row in plan.rows if isinstance(row, PolicyRecord)]
    if extensions:
        _all(len(extensions), await connection.execute(UPSERT_EXTENSIONS, parameter(extensions, EXTENSION)))
    if policies:
        _all(len(policies), await connection.execute(UPSERT_POLICIES, parameter(policies, POLICY)))
    if plan.rows:
        await connection.execute(
            "DELETE FROM tombstones t USING unnest($1::text[], $2::text[]) AS r(kind, id) "
            "WHERE t.kind = r.kind AND t.id = r.id",
            *_columns([key_of(row) for row in plan.rows]),
        )
    if plan.tombstones:
        await connection.execute(
            "INSERT INTO tombstones (kind, id, revision) SELECT r.kind, r.id, $3 "
            "FROM unnest($1::text[], $2::text[]) AS r(kind, id) "
            "ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision, removed_at = now()",
            *_columns(plan.tombstones), plan.revision,
        )  # fmt: skip


async def _append(connection: Connection, drafts: Sequence[AuditDraft], counter: _Counter) -> Head:
    """Appends to the audit log what is not in it yet; returns the new end of the chain."""
    if not drafts:
        return counter.head
    newest = {
        row["uid"]: audit_of(row)
        for row in await connection.fetch(
            SELECT_NEWEST_AUDIT,
            [draft.uid for draft in drafts],
        )
    }
    numbers = await connection.fetch(
        "SELECT nextval('extension_audit_log_id_seq') AS id, extension_audit_month($2) "
        "FROM generate_series(1, $1)",
        len(drafts), counter.now,
    )  # fmt: skip
    head, records, timestamp = counter.head, [], instants.spell(counter.now)
    for draft, number in zip(drafts, sorted(row["id"] for row in numbers), strict=True):
        if draft.repeats(newest.get(draft.uid)):
            continue
        record, head = link(head, draft, number, timestamp)
        records.append(record)
        newest[draft.uid] = record
    await connection.execute(INSERT_AUDIT, audit_parameter(records))
    return head


def _ids(keys: Sequence[Key], kind: str) -> list[str]:
    return [object_id for of, object_id in keys if of == kind]


def _columns(keys: Sequence[Key]) -> tuple[list[str], list[str]]:
    return [kind for kind, _ in keys], [object_id for _, object_id in keys]


def _count(status: str) -> int:
    """The number of rows in a command's status, such as ``INSERT 0 3``."""
    return int(status.rpartition(" ")[2])


def _all(wanted: int, status: str) -> None:
    if _count(status) != wanted:
        raise RegistryError("a row changed under the registry's lock: somebody else writes to these tables")
