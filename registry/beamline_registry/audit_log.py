"""The audit log as an auditor handles it: verifying, exporting, and retiring its oldest months.

The log is partitioned by month (UTC). Retiring takes whole months away, oldest first, and leaves one row in
``extension_audit_retired`` that says how many rows are gone and with which hash they ended: the chain that is
left begins there. So it stays verifiable, and so do the retired rows, from the file they were exported to.

Retiring drops tables, which only their owner may: the user that migrates, never the operator's role.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from .chain import Head, check_end, follow
from .database import Database
from .faults import translated
from .port import AuditBrokenError, AuditFault, AuditRecord, RegistryError
from .rows import SELECT_AUDIT, audit_of

if TYPE_CHECKING:
    from .database import Connection

PAGE: Final = 1_000
_PARTITION: Final = re.compile(r"extension_audit_log_([0-9]{4})_([0-9]{2})")
_TIMEOUT_S: Final = 10.0


class RetentionError(RegistryError):
    """Months can't be retired as asked; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Month:
    """One partition."""

    table: str
    year: int
    month: int

    @property
    def number(self) -> int:
        """Months since the year 0: for comparing."""
        return self.year * 12 + self.month - 1

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"


@dataclass(frozen=True, slots=True)
class Retired:
    """What :func:`retire` took away."""

    months: tuple[str, ...]
    rows: int


async def verify(connection: Connection) -> int:
    """Recomputes the chain from where it begins; returns the number of rows that are there.

    Raises :class:`AuditBrokenError`. The connection should hold one REPEATABLE READ view.
    """
    kept = await connection.fetchrow("SELECT audit_rows, audit_head FROM registry_revision")
    start, last = await _start(connection)
    found = start
    async for row in connection.cursor(f"{SELECT_AUDIT} ORDER BY id", prefetch=PAGE):
        record = audit_of(row)
        if record.sequence <= last:
            raise AuditBrokenError(AuditFault(record.sequence, "stands before what was retired"))
        found, last = follow(found, [record]), record.sequence
    check_end(found, Head(*kept) if kept is not None else Head(), last)
    return found.rows - start.rows


def verify_export(rows: Iterable[AuditRecord], start: Head | None = None) -> Head:
    """Checks exported rows, oldest first; returns their end. Raises :class:`AuditBrokenError`.

    Without ``start`` the first row is taken to follow whatever it says it follows.
    """
    last, head = 0, start
    for row in rows:
        if row.sequence <= last:
            raise AuditBrokenError(AuditFault(row.sequence, "is out of order"))
        head = follow(Head(0, row.previous_hash) if head is None else head, [row])
        last = row.sequence
    return head or Head()


def to_line(record: AuditRecord) -> bytes:
    """One row as a JSON line."""
    return orjson.dumps(asdict(record), option=orjson.OPT_APPEND_NEWLINE)


def of_lines(lines: Iterable[bytes]) -> Iterator[AuditRecord]:
    """The rows of an export. Raises :class:`ValueError` with the number of a line that is none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield AuditRecord(**orjson.loads(line))
        except (orjson.JSONDecodeError, TypeError) as error:
            raise ValueError(f"line {number} is no row of an audit log: {error}") from error


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """The database for one command. Raises :class:`RegistryError`."""
    database = await Database.open(url, application="beamline audit", timeout_s=_TIMEOUT_S, connections=1)
    try:
        yield database
    finally:
        await database.close()


async def export(database: Database, *, object_id: str | None = None) -> AsyncIterator[AuditRecord]:
    """Every row, oldest first, in one view; only those of one object with ``object_id``."""
    async with database.transaction("repeatable_read", readonly=True, bounded=False) as connection:
        query = f"{SELECT_AUDIT} WHERE $1::text IS NULL OR extension_id = $1 ORDER BY id"
        async for row in connection.cursor(query, object_id, prefetch=PAGE):
            yield audit_of(row)


async def retire(url: str, keep_months: int, *, now: datetime | None = None, archive: Any = None) -> Retired:
    """Takes away every month but the newest ``keep_months`` (the present one counts), oldest first.

    ``archive`` is a binary file that gets the rows as JSON lines before they go. All or nothing, in one
    transaction that writers wait for. Raises :class:`RetentionError`, :class:`AuditBrokenError` where the
    chain does not hold (a broken log is evidence and stays), and :class:`RegistryError`.
    """
    if keep_months < 1:
        raise RetentionError("at least the present month is kept")
    at = now or datetime.now(UTC)
    first_kept = at.year * 12 + at.month - keep_months
    with translated():
        connection = await asyncpg.connect(url, timeout=_TIMEOUT_S)
    try:
        with translated():
            async with connection.transaction():
                return await _retire(connection, first_kept, archive)
    except asyncpg.InsufficientPrivilegeError as error:
        raise RetentionError("only the user that migrates, who owns the tables, may retire months") from error
    finally:
        await connection.close()


async def _retire(connection: Any, first_kept: int, archive: Any) -> Retired:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode, decoder=orjson.loads, format="text"
    )
    await connection.execute("SELECT 1 FROM registry_revision FOR UPDATE")
    await verify(connection)
    months = [month for month in await _months(connection) if month.number < first_kept]
    start, _ = await _start(connection)
    if not months:
        return Retired((), 0)
    old = " UNION ALL ".join(f"SELECT * FROM {month.table}" for month in months)  # noqa: S608 -- matched names
    last = await connection.fetchval(f"SELECT max(id) FROM ({old}) AS old")  # noqa: S608 -- as above
    rows = 0
    if last is not None:
        kept = await connection.fetchval(
            f"SELECT min(id) FROM extension_audit_log WHERE id NOT IN (SELECT id FROM ({old}) AS old)"  # noqa: S608
        )
        if kept is not None and kept < last:
            raise RetentionError(
                f"row {kept} of a later month stands before row {last}: the database's clock went backwards; "
                "keep one month more"
            )
        head = start
        query = f"{SELECT_AUDIT} WHERE id <= $1 ORDER BY id"
        async for row in connection.cursor(query, last, prefetch=PAGE):
            record = audit_of(row)
            head = follow(head, [record])
            if archive is not None:
                archive.write(to_line(record))
        rows = head.rows - start.rows
        await connection.execute(
            "INSERT INTO extension_audit_retired (last_id, rows, hash, retired_by) "
            "VALUES ($1, $2, $3, session_user)",
            last, head.rows, head.hash,
        )  # fmt: skip
    if archive is not None:
        archive.flush()
    for month in months:
        await connection.execute(f"DROP TABLE {month.table}")
    return Retired(tuple(map(str, months)), rows)


async def _start(connection: Any) -> tuple[Head, int]:
    """Where the chain begins, and the id of the newest retired row."""
    row = await connection.fetchrow(
        "SELECT rows, hash, last_id FROM extension_audit_retired ORDER BY last_id DESC LIMIT 1"
    )
    return (Head(), 0) if row is None else (Head(row["rows"], row["hash"]), row["last_id"])


async def _months(connection: Any) -> list[Month]:
    names = await connection.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'extension_audit_log'::regclass ORDER BY c.relname"
    )
    found = [(row["relname"], _PARTITION.fullmatch(row["relname"])) for row in names]
    return [Month(name, int(match[1]), int(match[2])) for name, match in found if match]


def _encode(value: object) -> str:
    return orjson.dumps(value).decode()
