"""What a doctor asks of the registry's database: who we are there, its clock, and whether the log is safe.

Everything here only reads, in one short connection. What the role may not read is left out, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import orjson

from .chain import Head, follow
from .faults import translated
from .port import AuditBrokenError, AuditFault
from .rows import SELECT_AUDIT, audit_of

if TYPE_CHECKING:
    Connection: TypeAlias = "asyncpg.Connection[Any]"

TIMEOUT_S: Final = 5.0
OLDEST_SERVER: Final = 14
"""Major version of PostgreSQL from which on the migrations run."""
_GUARDS: Final = frozenset({"append_only_rows", "append_only_table"})
_CHANGES: Final = ("UPDATE", "DELETE", "TRUNCATE")


@dataclass(frozen=True, slots=True)
class Inspection:
    """The database as this login sees it. ``major`` is PostgreSQL's version; ``half_way`` is our own clock in
    the middle of the question for theirs.
    """

    server: str
    major: int
    user: str
    superuser: bool
    encrypted: bool
    clock: datetime
    half_way: datetime
    revision: int | None
    """None where there is no registry yet."""
    may_change_audit: tuple[str, ...] = ()
    """Statements on the audit log that this login has the privilege for."""
    owns_audit: bool = False
    guards_missing: tuple[str, ...] = ()
    """Triggers of the audit log, ``table.trigger``, that are not there or are switched off: a
    partition has its own.
    """


async def inspect(url: str) -> Inspection:
    """Looks once. Raises :class:`.port.RegistryError`."""
    with translated():
        connection = await _connect(url)
        try:
            return await _inspect(connection)
        finally:
            await connection.close(timeout=TIMEOUT_S)


async def verify_newest(url: str, rows: int) -> int:
    """Recomputes the hashes of the newest ``rows`` of the audit log and that it ends where the registry says;
    returns how many there were. Raises :class:`.port.AuditBrokenError` and :class:`.port.RegistryError`.
    """
    with translated():
        connection = await _connect(url)
        try:
            await connection.set_type_codec(
                "jsonb", schema="pg_catalog", encoder=_encode, decoder=orjson.loads, format="text"
            )
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                kept = await connection.fetchval("SELECT audit_head FROM registry_revision")
                found = await connection.fetch(
                    f"SELECT * FROM ({SELECT_AUDIT} ORDER BY id DESC LIMIT $1) AS newest ORDER BY id",  # noqa: S608 -- our own words
                    rows,
                )
                start = await connection.fetchval(
                    "SELECT hash FROM extension_audit_retired ORDER BY last_id DESC LIMIT 1"
                )
        finally:
            await connection.close(timeout=TIMEOUT_S)
    records = [audit_of(row) for row in found]
    begin = Head(0, records[0].previous_hash if records else start or "")
    end = follow(begin, records)
    if kept is not None and end.hash != kept:
        last = records[-1].sequence if records else 0
        raise AuditBrokenError(AuditFault(last, "is not the newest row that was written: rows are missing"))
    return len(records)


async def _connect(url: str) -> Connection:
    return await asyncpg.connect(
        url,
        timeout=TIMEOUT_S,
        command_timeout=TIMEOUT_S,
        server_settings={"application_name": "beamline check"},
    )


async def _inspect(connection: Connection) -> Inspection:
    before = datetime.now(UTC)
    clock = await connection.fetchval("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    row = await connection.fetchrow(
        "SELECT current_user AS name, current_setting('server_version') AS version, "
        "current_setting('server_version_num')::int / 10000 AS major, "
        "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser, "
        "coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted, "
        "to_regclass('registry_revision') IS NOT NULL AS there, "
        "to_regclass('extension_audit_log') AS audit"
    )
    assert row is not None
    guards, may, owns = await _audit(connection) if row["audit"] is not None else ((), (), False)
    return Inspection(
        server=row["version"].split()[0],
        major=row["major"],
        user=row["name"],
        superuser=row["superuser"],
        encrypted=row["encrypted"],
        clock=clock,
        half_way=before + (after - before) / 2,
        revision=await connection.fetchval("SELECT revision FROM registry_revision")
        if row["there"]
        else None,
        may_change_audit=may,
        owns_audit=owns,
        guards_missing=guards,
    )


async def _audit(connection: Connection) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Guards that are missing, statements that this login may run, and whether it owns the table.

    ``tgenabled`` A: the trigger fires always, also in a session that plays a replica.
    """
    tables = await connection.fetch(
        "SELECT c.relname, array(SELECT t.tgname::text FROM pg_trigger t "
        "WHERE t.tgrelid = c.oid AND t.tgenabled = 'A') AS guards FROM pg_class c "
        "WHERE c.oid = 'extension_audit_log'::regclass "
        "OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'extension_audit_log'::regclass)"
    )
    may = [
        statement
        for statement in _CHANGES
        if await connection.fetchval("SELECT has_table_privilege('extension_audit_log', $1)", statement)
    ]
    owns = await connection.fetchval(
        "SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = 'extension_audit_log'::regclass"
    )
    missing = sorted(
        f"{table['relname']}.{name}" for table in tables for name in _GUARDS - set(table["guards"])
    )
    return tuple(missing), tuple(may), bool(owns)


def _encode(value: object) -> str:
    return orjson.dumps(value).decode()
