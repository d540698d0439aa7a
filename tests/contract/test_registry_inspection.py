"""What a doctor finds out about a real database: who logs in, and whether history can be or was rewritten."""

from __future__ import annotations

import asyncpg
import pytest

from beamline_cli.doctor import registry as checks
from beamline_cli.doctor.checks import examine
from beamline_cli.doctor.patient import Patient, Verdict
from beamline_registry.inspection import inspect, verify_newest
from beamline_registry.migrate import migrate
from beamline_registry.port import AuditBrokenError, Upsert
from beamline_registry.postgres import PostgresRegistry
from harness.registry_world import extension


@pytest.fixture
async def written(database_url: str) -> str:
    """The URL of a database with a registry and three rows in its audit log."""
    await migrate(database_url)
    registry = await PostgresRegistry.connect(database_url)
    epoch = await registry.acquire_epoch("test")
    for name in ("one", "two", "three"):
        await registry.write([Upsert(extension(name), "anna")], epoch=epoch)
    await registry.close()
    return database_url


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _login(url: str, role: str) -> str:
    """The same database as a member of one of our roles."""
    await _execute(
        url,
        f"DO $$ BEGIN CREATE ROLE doctor_{role} LOGIN IN ROLE beamline_{role}; "
        "EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )
    return url.replace("//postgres@", f"//doctor_{role}@")


async def test_the_operators_own_login_is_well(written: str) -> None:
    login = await _login(written, "operator")
    found = {check.name: one for check, one in await examine(Patient(database_url=login))}
    verdicts = {name: one.verdict for name, one in found.items() if not one.message.startswith("no ")}
    assert set(verdicts.values()) == {Verdict.OK}, found
    assert len(verdicts) == 7
    assert "3 rows" in found["audit-chain"].message


async def test_a_login_that_owns_the_log_is_told(written: str) -> None:
    found = await checks.role(Patient(database_url=written))
    assert found.verdict is Verdict.WARNING
    assert "is a superuser" in found.message


async def test_a_privilege_on_the_log_is_told(written: str) -> None:
    login = await _login(written, "operator")
    await _execute(written, "GRANT UPDATE ON extension_audit_log TO doctor_operator")
    found = await checks.role(Patient(database_url=login))
    assert found.verdict is Verdict.WARNING
    assert "may UPDATE the audit log" in found.message


async def test_a_login_of_routers_may_not_read_the_log_and_that_is_no_failure(written: str) -> None:
    login = await _login(written, "router")
    found = {check.name: one for check, one in await examine(Patient(database_url=login))}
    assert found["audit-chain"].verdict is Verdict.SKIPPED
    assert found["database-role"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("ALTER TABLE extension_audit_log DISABLE TRIGGER append_only_rows", "append_only_rows"),
        ("DROP TRIGGER append_only_table ON extension_audit_log", "extension_audit_log.append_only_table"),
        ("ALTER TABLE extension_audit_log ENABLE TRIGGER append_only_table", "append_only_table"),
    ],
    ids=["switched off", "dropped", "not for replicas any more"],
)
async def test_a_guard_that_is_gone_is_a_failure(written: str, statement: str, name: str) -> None:
    await _execute(written, statement)
    found = await checks.guards(Patient(database_url=written))
    assert found.verdict is Verdict.FAILED
    assert name in found.message


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE extension_audit_log SET changed_by = 'nobody' WHERE extension_id = 'two'", "was edited"),
        ("DELETE FROM extension_audit_log WHERE extension_id = 'two'", "does not follow the row before"),
        ("DELETE FROM extension_audit_log WHERE extension_id = 'three'", "is not the newest row"),
    ],
    ids=["an edited row", "a row taken out", "the newest row cut off"],
)
async def test_a_log_that_was_rewritten_is_a_failure(written: str, statement: str, words: str) -> None:
    off = "ALTER TABLE {} DISABLE TRIGGER append_only_rows"
    connection = await asyncpg.connect(written)
    try:
        tables = await connection.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
            "WHERE inhparent = 'extension_audit_log'::regclass"
        )
    finally:
        await connection.close()
    await _execute(written, *(off.format(row["name"]) for row in tables), statement)
    with pytest.raises(AuditBrokenError, match=words):
        await verify_newest(written, 1000)
    found = await checks.chain(Patient(database_url=written))
    assert found.verdict is Verdict.FAILED


async def test_only_as_many_rows_as_asked_for_are_computed_again(written: str) -> None:
    assert await verify_newest(written, 2) == 2


async def test_an_empty_database_lacks_its_schema_and_nothing_else_fails(database_url: str) -> None:
    assert (await inspect(database_url)).revision is None
    found = {check.name: one for check, one in await examine(Patient(database_url=database_url))}
    assert [name for name, one in found.items() if one.verdict is Verdict.FAILED] == ["schema"]
    assert "beamline migrate" in found["schema"].message


async def test_a_database_that_is_away_is_one_failure() -> None:
    found = {
        check.name: one
        for check, one in await examine(Patient(database_url="postgresql://nobody@127.0.0.1:1/none"))
    }
    assert [name for name, one in found.items() if one.verdict is Verdict.FAILED] == ["database"]
