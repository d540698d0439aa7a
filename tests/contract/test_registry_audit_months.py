"""The audit log in months: old rows move over, old months go, and the chain holds."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import asyncpg
import orjson
import pytest

from beamline_registry import instants
from beamline_registry.audit_log import RetentionError, of_lines, retire, to_line, verify_export
from beamline_registry.chain import AuditDraft, Head, hash_of, link
from beamline_registry.migrate import migrate, packaged
from beamline_registry.port import AuditBrokenError, AuditQuery, AuditRecord, Upsert
from beamline_registry.postgres import PostgresRegistry
from beamline_registry.rows import AUDIT
from harness.registry_world import extension

NOW = datetime(2026, 6, 15, tzinfo=UTC)


def chain(months: list[int]) -> list[AuditRecord]:
    """One row in each month of 2026."""
    rows, head = [], Head()
    for number, month in enumerate(months, start=1):
        draft = AuditDraft(
            "Extension", "mock", "uid-mock", number, "updated", "ada", {"weight": {"from": 1, "to": 2}}
        )
        row, head = link(head, draft, number, instants.spell(datetime(2026, month, 3, tzinfo=UTC)))
        rows.append(row)
    return rows


async def put(url: str, rows: list[AuditRecord], columns: list[str]) -> None:
    """Rows as the past has left them."""
    connection = await asyncpg.connect(url)
    try:
        for row in rows:
            fields = {"id": row.sequence, "extension_id": row.object_id}
            values = [fields.get(name, getattr(row, name, None)) for name in columns]
            values = [
                datetime.fromisoformat(value) if name == "timestamp" else
                orjson.dumps(value).decode() if name == "changes" else value
                for name, value in zip(columns, values, strict=True)
            ]  # fmt: skip
            if "request_id" in columns:
                await connection.execute(
                    "SELECT extension_audit_month($1)", values[columns.index("timestamp")]
                )
            marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
            names = ", ".join(f'"{name}"' for name in columns)
            await connection.execute(f"INSERT INTO extension_audit_log ({names}) VALUES ({marks})", *values)
        await connection.execute(
            "UPDATE registry_revision SET audit_rows = $1, audit_head = $2", len(rows), rows[-1].hash
        )
        await connection.execute("SELECT setval('extension_audit_log_id_seq', $1)", len(rows))
    finally:
        await connection.close()


async def months_of(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
        "WHERE inhparent = 'extension_audit_log'::regclass ORDER BY 1"
    )
    await connection.close()
    return [row["name"].removeprefix("extension_audit_log_") for row in rows]


async def verified(url: str) -> int:
    registry = await PostgresRegistry.connect(url)
    try:
        return await registry.verify_audit()
    finally:
        await registry.close()


async def test_rows_from_before_the_months_move_over_and_the_chain_goes_on(database_url: str) -> None:
    before = [migration for migration in packaged() if migration.name < "0005"]
    await migrate(database_url, migrations=before)
    await put(database_url, chain([1, 1, 3]), [name for name in AUDIT if name != "request_id"])
    await migrate(database_url)
    assert {"2026_01", "2026_03"} <= set(await months_of(database_url))
    registry = await PostgresRegistry.connect(database_url)
    try:
        assert await registry.verify_audit() == 3
        await registry.write([Upsert(extension(), "anna")], epoch=await registry.acquire_epoch("anna"))
        assert await registry.verify_audit() == 4
        assert [row.sequence for row in await registry.audit(AuditQuery())] == [4, 3, 2, 1]
    finally:
        await registry.close()


async def test_old_months_go_to_the_archive_and_both_parts_stay_verifiable(database_url: str) -> None:
    await migrate(database_url)
    rows = chain([1, 2, 2, 5, 6])
    await put(database_url, rows, list(AUDIT))
    archive = io.BytesIO()
    retired = await retire(database_url, 2, now=NOW, archive=archive)
    assert (retired.months, retired.rows) == (("2026-01", "2026-02"), 3)
    assert await verified(database_url) == 2
    archived = list(of_lines(archive.getvalue().splitlines()))
    assert archived == rows[:3]
    assert verify_export(archived, Head()) == Head(3, rows[2].hash)
    again = await retire(database_url, 2, now=NOW)
    assert (again.months, again.rows) == ((), 0)
    assert (await retire(database_url, 1, now=NOW)).months == ("2026-05",)
    assert await verified(database_url) == 1


async def test_a_row_that_is_missing_after_the_retired_ones_is_found(database_url: str) -> None:
    await migrate(database_url)
    await put(database_url, chain([1, 5, 6]), list(AUDIT))
    await retire(database_url, 2, now=NOW)
    connection = await asyncpg.connect(database_url)
    await connection.execute("DROP TABLE extension_audit_log_2026_05")
    await connection.close()
    with pytest.raises(AuditBrokenError, match="rows are missing"):
        await verified(database_url)


@pytest.mark.parametrize(
    ("tampering", "reason"),
    [
        pytest.param("UPDATE {log} SET changed_by = 'x' WHERE id = 4", "edited", id="edited"),
        pytest.param("DELETE FROM {log} WHERE id = 3", "missing", id="the first that is left removed"),
        pytest.param("DELETE FROM {log} WHERE id = 4", "missing", id="one in the middle removed"),
        pytest.param("DELETE FROM {log} WHERE id = 5", "newest are missing", id="the last removed"),
        pytest.param("DELETE FROM {log}", "newest are missing", id="all that is left removed"),
        pytest.param(
            "UPDATE {log} SET id = 9 WHERE id = 3; UPDATE {log} SET id = 3 WHERE id = 4; "
            "UPDATE {log} SET id = 4 WHERE id = 9",
            "reordered",
            id="two swapped",
        ),
        pytest.param(
            "INSERT INTO {log} SELECT 7, kind, extension_id, uid, 9, action, changed_by, changes, timestamp, "
            "hash, 'made up' FROM {log} WHERE id = 5",
            "edited",
            id="one put behind the last",
        ),
        pytest.param(
            "UPDATE {log} SET id = id + 1 WHERE id = 5; INSERT INTO {log} SELECT 5, kind, extension_id, uid, "
            "9, action, changed_by, changes, timestamp, hash, 'made up' FROM {log} WHERE id = 4",
            "edited",
            id="one put in between",
        ),
        pytest.param(
            "INSERT INTO {log} SELECT 1, kind, extension_id, uid, 9, action, changed_by, changes, timestamp, "
            "'', hash FROM {log} WHERE id = 3",
            "before what was retired",
            id="one put where rows were retired",
        ),
    ],
)
async def test_tampering_is_found_after_months_were_retired_too(
    database_url: str, tampering: str, reason: str
) -> None:
    await migrate(database_url)
    await put(database_url, chain([1, 2, 5, 5, 6]), list(AUDIT))
    await retire(database_url, 2, now=NOW)
    assert await verified(database_url) == 3
    connection = await asyncpg.connect(database_url)
    await connection.execute("ALTER TABLE extension_audit_log DISABLE TRIGGER USER")
    await connection.execute(tampering.format(log="extension_audit_log"))
    await connection.close()
    with pytest.raises(AuditBrokenError, match=reason):
        await verified(database_url)


async def test_a_broken_log_is_evidence_and_is_not_retired(database_url: str) -> None:
    await migrate(database_url)
    rows = chain([1, 5, 6])
    await put(database_url, [rows[0], rows[2]], list(AUDIT))
    with pytest.raises(AuditBrokenError):
        await retire(database_url, 1, now=NOW)
    assert "2026_01" in await months_of(database_url)


async def test_a_clock_that_went_backwards_keeps_the_months_it_mixed(database_url: str) -> None:
    await migrate(database_url)
    await put(database_url, chain([5, 1, 5]), list(AUDIT))
    with pytest.raises(RetentionError, match="went backwards"):
        await retire(database_url, 2, now=NOW)
    assert await verified(database_url) == 3


async def test_the_present_month_is_always_kept(database_url: str) -> None:
    with pytest.raises(RetentionError, match="present month"):
        await retire(database_url, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE extension_audit_log_2026_01 SET changed_by = 'nobody'",
        "DELETE FROM extension_audit_log_2026_01",
        "TRUNCATE extension_audit_log_2026_01",
        "SET session_replication_role = replica; TRUNCATE extension_audit_log_2026_01",
        "SET session_replication_role = replica; DELETE FROM extension_audit_log_2026_01",
        "UPDATE extension_audit_retired SET rows = 0",
        "TRUNCATE extension_audit_retired",
    ],
)
async def test_a_month_by_its_own_name_is_append_only_too(database_url: str, statement: str) -> None:
    await migrate(database_url)
    await put(database_url, chain([1, 5]), list(AUDIT))
    await retire(database_url, 2, now=datetime(2026, 2, 1, tzinfo=UTC))
    connection = await asyncpg.connect(database_url)
    try:
        if "retired" in statement:
            await connection.execute(
                "INSERT INTO extension_audit_retired (last_id, rows, hash, retired_by) VALUES (0, 0, '', 'x')"
            )
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE extension_audit_log_2026_01",
        "ALTER TABLE extension_audit_log DETACH PARTITION extension_audit_log_2026_01",
        "INSERT INTO extension_audit_retired (last_id, rows, hash, retired_by) VALUES (9, 9, '', 'x')",
    ],
)
async def test_the_operators_role_can_take_nothing_away(database_url: str, statement: str) -> None:
    await migrate(database_url)
    await put(database_url, chain([1]), list(AUDIT))
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SET ROLE beamline_operator")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


def test_an_export_with_an_edited_removed_or_moved_row_is_found() -> None:
    rows = chain([1, 2, 3])
    lines = [to_line(row) for row in rows]
    assert verify_export(of_lines(lines)).hash == rows[-1].hash
    edited = lines[1].replace(b'"ada"', b'"eve"')
    for broken in ([lines[0], edited, lines[2]], [lines[0], lines[2]], [lines[1], lines[0], lines[2]]):
        with pytest.raises(AuditBrokenError):
            verify_export(of_lines(broken))
    with pytest.raises(ValueError, match="line 2"):
        list(of_lines([lines[0], b"{}"]))


def test_rows_without_a_request_keep_the_hash_that_they_always_had() -> None:
    assert hash_of(chain([1])[0]) == "0ef4288cbf0adac77058d3a0407cd375bae088f4b83c1b1183c0c19b2a39ca76"
