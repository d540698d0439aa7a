"""The registry while PostgreSQL is frozen, stopped, away or held by somebody else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from beamline_cli.local.postgres import LocalPostgres
from beamline_registry.migrate import migrate
from beamline_registry.port import (
    Outcome,
    RegistryUnavailableError,
    Upsert,
)
from beamline_registry.postgres import PostgresRegistry
from beamline_registry.reader import PostgresReader
from harness.registry_world import extension


@contextmanager
def frozen(server: LocalPostgres) -> Iterator[None]:
    """The server and all of its processes stand still; the kernel still takes connections."""
    assert server.pid is not None
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    everyone = [server.pid, *map(int, children)]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)


class TestOutages:
    async def test_a_frozen_server_costs_the_timeout_and_no_more_then_all_is_well_again(
        self, own_postgres: LocalPostgres
    ) -> None:
        await migrate(own_postgres.url())
        registry = await PostgresRegistry.connect(own_postgres.url(), timeout_s=1.0, connections=2)
        epoch = await registry.acquire_epoch("a")
        await registry.write([Upsert(extension(), "a")], epoch=epoch)
        started = time.monotonic()
        with frozen(own_postgres):
            # More callers than connections: some wait for an answer, some for a connection to be opened.
            change = [Upsert(extension(generation=2), "a")]
            calls: list[Awaitable[object]] = [registry.read(0) for _ in range(3)]
            calls += [registry.write(change, epoch=epoch) for _ in range(3)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            results += await asyncio.gather(registry.read(0), return_exceptions=True)
        assert [type(result) for result in results] == [RegistryUnavailableError] * 7
        assert time.monotonic() - started < 15
        assert (await registry.read(0)).extensions[0].id == "mock"
        (result,) = await registry.write([Upsert(extension(generation=2), "a")], epoch=epoch)
        assert result.outcome in {Outcome.WRITTEN, Outcome.UNCHANGED}
        assert await registry.verify_audit() == 2
        await registry.close()

    async def test_a_busy_process_reads_a_large_table_however_many_commands_it_takes(
        self, own_postgres: LocalPostgres
    ) -> None:
        await migrate(own_postgres.url())
        registry = await PostgresRegistry.connect(own_postgres.url())
        epoch = await registry.acquire_epoch("a")
        await registry.write([Upsert(extension(f"e{number}"), "a") for number in range(400)], epoch=epoch)
        await registry.close()
        reader = await PostgresReader.connect(own_postgres.url(), timeout_s=0.5, connections=1)
        await reader.ping()

        async def busy() -> None:
            while True:
                time.sleep(0.02)  # noqa: ASYNC251 -- as requests do, of which there are always more
                await asyncio.sleep(0)

        requests = asyncio.create_task(busy())
        try:
            assert len((await reader.read(0)).extensions) == 400
        finally:
            requests.cancel()
            await reader.close()

    async def test_closing_while_the_server_is_frozen_ends(self, own_postgres: LocalPostgres) -> None:
        await migrate(own_postgres.url())
        registry = await PostgresRegistry.connect(own_postgres.url(), timeout_s=0.5)
        await registry.read(0)
        with frozen(own_postgres):
            await asyncio.wait_for(registry.close(), 15)

    async def test_the_pool_finds_a_server_that_was_stopped_and_started_again(
        self, own_postgres: LocalPostgres
    ) -> None:
        await migrate(own_postgres.url())
        registry = await PostgresRegistry.connect(own_postgres.url())
        await registry.write([Upsert(extension(), "a")], epoch=0)
        address = own_postgres.url()
        own_postgres.stop()
        for _ in range(2):
            with pytest.raises(RegistryUnavailableError):
                await registry.read(0)
        own_postgres.start()
        assert own_postgres.url() == address
        assert (await registry.read(0)).revision == 1
        await registry.close()

    async def test_a_component_starts_while_the_database_is_away(self, tmp_path: Path) -> None:
        reader = await PostgresReader.connect(f"postgresql://postgres@/nowhere?host={tmp_path}")
        with pytest.raises(RegistryUnavailableError, match="can't be reached"):
            await reader.read(0)
        await reader.close()

    async def test_a_cancelled_call_gives_its_connection_back(
        self, registry: PostgresRegistry, sql: asyncpg.Connection[Any]
    ) -> None:
        async with sql.transaction():
            await sql.fetch("SELECT * FROM registry_revision FOR UPDATE")
            waiting = [
                asyncio.create_task(registry.write([Upsert(extension(), "a")], epoch=0)) for _ in range(4)
            ]
            await asyncio.sleep(0.2)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert (await registry.read(0)).revision == 0
        await registry.write([Upsert(extension(), "a")], epoch=0)
        assert (await registry.read(0)).revision == 1

    async def test_a_lock_that_somebody_holds_is_not_waited_for_without_end(
        self, registry: PostgresRegistry, database_url: str, sql: asyncpg.Connection[Any]
    ) -> None:
        impatient = await PostgresRegistry.connect(database_url, timeout_s=0.5)
        async with sql.transaction():
            await sql.fetch("SELECT * FROM registry_revision FOR UPDATE")
            with pytest.raises(RegistryUnavailableError):
                await impatient.write([Upsert(extension(), "a")], epoch=0)
        await impatient.write([Upsert(extension(), "a")], epoch=0)
        await impatient.close()
