"""Migrations on real databases: fresh, again, all at once, and refused where something does not add up."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from beamline_cli.local.postgres import LocalPostgres
from beamline_registry.migrate import Migration, check, latest, migrate, packaged
from beamline_registry.port import RegistryError, RegistryUnavailableError, SchemaError

NAMES = [migration.name for migration in packaged()]


async def rows(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def test_a_fresh_database_gets_all_of_them_in_order(database_url: str) -> None:
    seen: list[str] = []
    assert await migrate(database_url, on_progress=seen.append) == NAMES == seen
    assert latest() == NAMES[-1]
    assert await check(database_url) is None


async def test_a_second_time_there_is_nothing_left_to_do(database_url: str) -> None:
    await migrate(database_url)
    assert await migrate(database_url) == []


async def test_of_eight_at_once_one_works_and_all_succeed(database_url: str) -> None:
    done = await asyncio.gather(*(migrate(database_url) for _ in range(8)))
    assert sorted(done, key=len) == [[]] * 7 + [NAMES]


async def test_databases_of_one_server_are_migrated_at_once_though_they_share_the_roles(
    own_postgres: LocalPostgres,
) -> None:
    for number in range(4):
        connection = await asyncpg.connect(own_postgres.url())
        await connection.execute(f"CREATE DATABASE together_{number}")
        await connection.close()
    done = await asyncio.gather(*(migrate(own_postgres.url(f"together_{number}")) for number in range(4)))
    assert done == [NAMES] * 4
    roles = await rows(
        own_postgres.url(), "SELECT rolcanlogin FROM pg_roles WHERE rolname LIKE 'beamline\\_%'"
    )
    assert [row["rolcanlogin"] for row in roles] == [False, False]


async def test_an_older_database_gets_what_it_lacks(database_url: str) -> None:
    await migrate(database_url, migrations=packaged()[:2])
    assert await check(database_url) == f"the database lacks {', '.join(NAMES[2:])}: run `beamline migrate`"
    assert await migrate(database_url) == NAMES[2:]


async def test_an_edited_migration_is_refused(database_url: str) -> None:
    await migrate(database_url)
    edited = [replace(packaged()[0], sql=packaged()[0].sql + "-- better"), *packaged()[1:]]
    with pytest.raises(SchemaError, match=f"{NAMES[0]} was edited"):
        await migrate(database_url, migrations=edited)


async def test_a_newer_database_is_refused_but_accepted_by_those_who_say_so(database_url: str) -> None:
    await migrate(database_url, migrations=[*packaged(), Migration("9999_future", "CREATE TABLE future ()")])
    with pytest.raises(SchemaError, match=r"9999_future.*install the newer release"):
        await migrate(database_url)
    assert "9999_future" in str(await check(database_url))
    assert await check(database_url, allow_newer=True) is None


async def test_a_migration_that_fails_leaves_nothing_of_itself(database_url: str) -> None:
    broken = Migration("9999_broken", "CREATE TABLE half (); SELECT 1 / 0")
    with pytest.raises(RegistryError):
        await migrate(database_url, migrations=[*packaged(), broken])
    assert await check(database_url) is None
    assert await rows(database_url, "SELECT to_regclass('half') AS it") == [(None,)]
    with pytest.raises(SchemaError, match="9999_typo is not valid SQL"):
        await migrate(database_url, migrations=[*packaged(), Migration("9999_typo", "CREATE TABEL x ()")])


async def test_somebody_elses_migration_is_not_waited_for_without_end(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("SELECT pg_advisory_lock($1)", 0x6265616D)
    with pytest.raises(RegistryUnavailableError, match=r"another migration.*did not end within 0\.2 s"):
        await migrate(database_url, lock_s=0.2)
    await connection.close()


async def test_a_database_that_was_never_migrated_is_said_so(database_url: str) -> None:
    assert await check(database_url) == "the database holds no registry yet: run `beamline migrate`"


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    for call in (migrate, check):
        with pytest.raises(RegistryUnavailableError, match="can't be reached"):
            await call(f"postgresql://postgres@/beamline?host={tmp_path}")


async def test_a_user_who_may_not_make_roles_can_still_migrate(own_postgres: LocalPostgres) -> None:
    connection = await asyncpg.connect(own_postgres.url())
    await connection.execute("CREATE ROLE plain LOGIN")
    await connection.execute("CREATE DATABASE plain OWNER plain")
    await connection.close()
    url = own_postgres.url("plain", user="plain")
    assert await migrate(url) == NAMES
    assert await check(url) is None
    assert await rows(url, "SELECT FROM pg_roles WHERE rolname LIKE 'beamline\\_%'") == []


async def test_every_table_and_column_says_what_it_is_for(database_url: str) -> None:
    await migrate(database_url)
    silent = await rows(
        database_url,
        """
        SELECT c.relname, a.attname FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND col_description(c.oid, a.attnum) IS NULL
        UNION ALL
        SELECT c.relname, '' FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
            AND obj_description(c.oid) IS NULL
        """,
    )
    assert silent == []


async def test_the_look_ups_by_type_and_by_object_have_their_indexes(database_url: str) -> None:
    await migrate(database_url)
    found = {row["indexdef"] for row in await rows(database_url, "SELECT indexdef FROM pg_indexes")}
    assert any("ON public.extensions USING btree (type) WHERE enabled" in index for index in found)
    assert any(
        'ON ONLY public.extension_audit_log USING btree (extension_id, "timestamp" DESC)' in index
        for index in found
    )


async def test_the_page_on_the_schema_names_every_table_and_column(database_url: str) -> None:
    await migrate(database_url)
    page = (Path(__file__).parents[2] / "docs" / "registry-schema.md").read_text("utf-8")
    columns = await rows(
        database_url,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND NOT (SELECT relispartition FROM pg_class WHERE oid = table_name::regclass)",
    )
    described = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    missing = [tuple(row) for row in columns if f"`{row[1]}`" not in described.get(row[0], "")]
    assert missing == []
