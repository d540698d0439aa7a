"""What only PostgreSQL can get wrong: transactions, privileges, tampering, set-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from beamline_cli.local.postgres import LocalPostgres
from beamline_contract.reports import HealthDelta
from beamline_registry import database
from beamline_registry.database import Database
from beamline_registry.port import (
    AuditBrokenError,
    AuditQuery,
    Delta,
    FencedError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    Remove,
    SchemaError,
    Upsert,
)
from beamline_registry.postgres import PostgresRegistry
from beamline_registry.reader import PostgresReader
from harness.registry_world import extension


async def _answer(reader: PostgresReader, since: int) -> Delta:
    """What it reads once it has noticed that its connection is gone."""
    while True:
        with suppress(RegistryUnavailableError):
            return await reader.read(since)


class TestFailOver:
    @pytest.mark.parametrize(
        "later",
        [
            pytest.param((), id="has come to the reader's revision"),
            pytest.param(("c", "d"), id="has passed the reader's revision"),
        ],
    )
    async def test_from_a_standby_that_lacked_the_last_writes_and_then_wrote_others_nothing_is_missed(
        self, registry: PostgresRegistry, database_url: str, later: tuple[str, ...]
    ) -> None:
        epoch = await registry.acquire_epoch("a")
        for name in ("a", "b", "c", "d"):
            await registry.write([Upsert(extension(name), "a")], epoch=epoch)
        reader = await PostgresReader.connect(database_url, application="reader", connections=1)
        assert (await reader.read(0)).revision == 4
        connection = await asyncpg.connect(database_url)
        await connection.execute("DELETE FROM extensions WHERE id IN ('c', 'd')")
        await connection.execute("UPDATE registry_revision SET revision = 2")
        await registry.write([Upsert(extension("b", generation=2), "a")], epoch=epoch)
        await registry.write([Remove("Extension", "a", "uid-a", 2, "a")], epoch=epoch)
        for name in later:
            await registry.write([Upsert(extension(name, generation=2), "a")], epoch=epoch)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reader'"
        )
        await connection.close()
        delta = await _answer(reader, 4)
        assert [row.id for row in delta.extensions] == ["b", *later]
        assert [stone.id for stone in delta.removed] == ["a"]
        again = await reader.read(delta.revision)
        assert (again.full, again.extensions, again.removed) == (False, [], [])
        await reader.close()


class TestFencing:
    async def test_nothing_of_the_old_leader_lands_after_the_new_one_has_its_epoch(
        self, registry: PostgresRegistry, database_url: str
    ) -> None:
        successor = await PostgresRegistry.connect(database_url)
        old = await registry.acquire_epoch("old")

        async def write(number: int) -> bool:
            try:
                await registry.write([Upsert(extension(f"e{number}"), "old")], epoch=old)
            except FencedError:
                return False
            return True

        writes = [asyncio.create_task(write(number)) for number in range(40)]
        await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        await successor.acquire_epoch("new")
        landed = (await successor.read(0)).revision
        outcomes = await asyncio.gather(*writes)
        assert (await registry.read(0)).revision == landed == sum(outcomes)
        assert not all(outcomes)
        await successor.close()

    async def test_a_leader_that_froze_inside_its_transaction_gives_way_and_can_not_commit(
        self, registry: PostgresRegistry, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "IDLE_TRANSACTION_S", 0.3)
        frozen = await Database.open(database_url, application="frozen", timeout_s=30, connections=1)
        thawed = asyncio.Event()

        async def freeze(locked: asyncio.Event) -> None:
            async with frozen.transaction() as connection:
                await connection.fetch("SELECT * FROM registry_revision FOR UPDATE")
                await connection.fetch("SELECT * FROM operator_epoch FOR SHARE")
                locked.set()
                await thawed.wait()
                await connection.execute("UPDATE registry_revision SET revision = 999")

        locked = asyncio.Event()
        leader = asyncio.create_task(freeze(locked))
        await locked.wait()
        epoch = await registry.acquire_epoch("successor")
        await registry.write([Upsert(extension(), "successor")], epoch=epoch)
        thawed.set()
        with pytest.raises(RegistryUnavailableError):
            await leader
        assert (await registry.read(0)).revision == 1
        await frozen.close()

    async def test_a_transaction_that_fails_leaves_nothing(
        self, registry: PostgresRegistry, sql: asyncpg.Connection[Any]
    ) -> None:
        epoch = await registry.acquire_epoch("a")
        await sql.execute("ALTER TABLE extension_audit_log ADD CONSTRAINT no CHECK (extension_id <> 'bad')")
        with pytest.raises(RegistryError):
            await registry.write([Upsert(extension("good"), "a"), Upsert(extension("bad"), "a")], epoch=epoch)
        assert (await registry.read(0)).revision == 0
        await registry.write([Upsert(extension("good"), "a")], epoch=epoch)
        assert await registry.verify_audit() == 1

    async def test_a_row_that_moves_behind_the_lock_fails_the_batch(
        self, registry: PostgresRegistry, sql: asyncpg.Connection[Any]
    ) -> None:
        """A trigger plays the intruder: it raises the stored generation just before the upsert looks."""
        epoch = await registry.acquire_epoch("a")
        await registry.write([Upsert(extension(), "a")], epoch=epoch)
        await sql.execute(
            "CREATE FUNCTION intrude() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "UPDATE extensions SET generation = 9 WHERE id = NEW.id; RETURN NEW; END $$;"
            "CREATE TRIGGER intrude BEFORE INSERT ON extensions FOR EACH ROW EXECUTE FUNCTION intrude()"
        )
        with pytest.raises(RegistryError):
            await registry.write([Upsert(extension(generation=2), "a")], epoch=epoch)
        assert (await registry.read(0)).extensions[0].generation == 1


class TestAuditLog:
    @pytest.mark.parametrize(
        "statement",
        [
            pytest.param("UPDATE extension_audit_log SET changed_by = 'nobody'", id="UPDATE"),
            pytest.param("DELETE FROM extension_audit_log", id="DELETE"),
            pytest.param("TRUNCATE extension_audit_log", id="TRUNCATE"),
            pytest.param("TRUNCATE extension_audit_log CASCADE", id="TRUNCATE CASCADE"),
            pytest.param(
                "SET session_replication_role = replica; DELETE FROM extension_audit_log",
                id="DELETE as a replica",
            ),
        ],
    )
    async def test_even_a_superuser_is_refused(
        self, registry: PostgresRegistry, sql: asyncpg.Connection[Any], statement: str
    ) -> None:
        await registry.write([Upsert(extension(), "a")], epoch=0)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await sql.execute(statement)
        assert await registry.verify_audit() == 1

    @pytest.mark.parametrize(
        ("tampering", "named", "reason"),
        [
            pytest.param("UPDATE {log} SET changed_by = 'x' WHERE id = 2", 2, "edited", id="edited who"),
            pytest.param(
                "UPDATE {log} SET changes = changes - 'subject' WHERE id = 3", 3, "edited", id="what"
            ),
            pytest.param("UPDATE {log} SET timestamp = 'yesterday' WHERE id = 4", 4, "edited", id="when"),
            pytest.param("DELETE FROM {log} WHERE id = 3", 4, "missing", id="one removed"),
            pytest.param("DELETE FROM {log} WHERE id = 1", 2, "missing", id="the first removed"),
            pytest.param("DELETE FROM {log} WHERE id >= 4", 3, "newest are missing", id="the newest removed"),
            pytest.param("DELETE FROM {log}", 0, "newest are missing", id="all removed"),
            pytest.param(
                "UPDATE {log} SET id = 99 WHERE id = 2; UPDATE {log} SET id = 2 WHERE id = 3; "
                "UPDATE {log} SET id = 3 WHERE id = 99",
                2,
                "reordered",
                id="two swapped",
            ),
        ],
    )
    async def test_tampering_by_a_superuser_is_found_and_named(
        self,
        registry: PostgresRegistry,
        sql: asyncpg.Connection[Any],
        tampering: str,
        named: int,
        reason: str,
    ) -> None:
        await registry.write([Upsert(extension(f"e{number}"), "a") for number in range(5)], epoch=0)
        await sql.execute("ALTER TABLE extension_audit_log DISABLE TRIGGER USER")
        await sql.execute(tampering.format(log="extension_audit_log"))
        with pytest.raises(AuditBrokenError, match=reason) as caught:
            await registry.verify_audit()
        assert caught.value.fault.sequence == named

    async def test_rows_of_a_batch_are_dated_inside_their_transaction(
        self, registry: PostgresRegistry, sql: asyncpg.Connection[Any]
    ) -> None:
        await registry.write([Upsert(extension(), "a")], epoch=0)
        (row,) = await registry.audit(AuditQuery())
        stored = await sql.fetchval("SELECT timestamp FROM extension_audit_log")
        assert row.timestamp.startswith(stored.strftime("%Y-%m-%dT%H:%M:%S"))


@pytest.fixture
async def logins(
    registry: PostgresRegistry, database_url: str, postgres: LocalPostgres
) -> AsyncIterator[dict[str, str]]:
    """URLs of a user with each group role, and of one with none."""
    suffix = database_url.rpartition("/")[2].split("?")[0]
    connection = await asyncpg.connect(database_url)
    groups = {"operator": "beamline_operator", "router": "beamline_router", "stranger": None}
    for name, group in groups.items():
        await connection.execute(
            f"CREATE ROLE {name}_{suffix} LOGIN" + (f" IN ROLE {group}" if group is not None else "")
        )
    yield {name: postgres.url(suffix, user=f"{name}_{suffix}") for name in groups}
    for name in groups:
        await connection.execute(f"DROP ROLE {name}_{suffix}")
    await connection.close()


class TestRoles:
    async def test_the_operator_role_is_enough_for_everything(self, logins: dict[str, str]) -> None:
        registry = await PostgresRegistry.connect(logins["operator"])
        epoch = await registry.acquire_epoch("a")
        await registry.write([Upsert(extension(), "a"), Upsert(extension("b"), "a")], epoch=epoch)
        await registry.fold_health([HealthDelta(extension_id="mock", success=1)], epoch=epoch)
        await registry.write([Remove("Extension", "mock", "", 1, "a")], epoch=epoch)
        await registry.compact(0, epoch=epoch)
        assert (await registry.read(0)).revision == 2
        assert await registry.verify_audit() == 3
        assert len(await registry.inventory()) == 1
        await registry.close()

    async def test_the_router_role_is_enough_for_reading_and_no_more(self, logins: dict[str, str]) -> None:
        reader = await PostgresReader.connect(logins["router"])
        assert (await reader.read(0)).full
        await reader.close()
        registry = await PostgresRegistry.connect(logins["router"])
        with pytest.raises(RegistryDeniedError):
            await registry.acquire_epoch("a router")
        with pytest.raises(RegistryDeniedError):
            await registry.write([Upsert(extension(), "a router")], epoch=0)
        with pytest.raises(RegistryDeniedError):
            await registry.audit(AuditQuery())
        await registry.close()

    @pytest.mark.parametrize("who", ["operator", "router", "stranger"])
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE extension_audit_log SET changed_by = 'nobody'",
            "DELETE FROM extension_audit_log",
            "TRUNCATE extension_audit_log",
            "ALTER TABLE extension_audit_log DISABLE TRIGGER USER",
            "DROP TABLE extensions",
            "UPDATE schema_migrations SET checksum = ''",
        ],
    )
    async def test_nobody_but_the_owner_reaches_behind_the_audit(
        self, logins: dict[str, str], who: str, statement: str
    ) -> None:
        connection = await asyncpg.connect(logins[who])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
        await connection.close()

    async def test_a_stranger_reads_nothing(self, logins: dict[str, str]) -> None:
        reader = await PostgresReader.connect(logins["stranger"])
        with pytest.raises(RegistryDeniedError):
            await reader.read(0)
        await reader.close()


class TestSetUp:
    async def test_a_database_without_tables_is_a_matter_of_migrating(self, database_url: str) -> None:
        registry = await PostgresRegistry.connect(database_url)
        with pytest.raises(SchemaError, match="beamline migrate"):
            await registry.read(0)
        with pytest.raises(SchemaError, match="beamline migrate"):
            await registry.write([Upsert(extension(), "a")], epoch=0)
        await registry.close()

    async def test_a_missing_database_is_said_so(self, postgres: LocalPostgres) -> None:
        registry = await PostgresRegistry.connect(postgres.url("no_such_database"))
        with pytest.raises(RegistryDeniedError, match="does not exist"):
            await registry.read(0)
        await registry.close()

    async def test_a_url_of_something_else_is_refused(self) -> None:
        with pytest.raises(RegistryError, match="URL"):
            await PostgresRegistry.connect("mysql://root@localhost/beamline")

    async def test_a_counter_that_was_deleted_is_refused(
        self, registry: PostgresRegistry, sql: asyncpg.Connection[Any]
    ) -> None:
        await sql.execute("DELETE FROM registry_revision")
        with pytest.raises(SchemaError, match="counter row is missing"):
            await registry.write([Upsert(extension(), "a")], epoch=0)

    async def test_a_full_read_of_two_thousand_rows_and_their_inventory_come_in_one_piece(
        self, registry: PostgresRegistry
    ) -> None:
        await registry.write([Upsert(extension(f"e{number:04}"), "a") for number in range(2000)], epoch=0)
        assert len((await registry.read(0)).extensions) == len(await registry.inventory()) == 2000
        assert await registry.verify_audit() == 2000
