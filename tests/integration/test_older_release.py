"""Expand, then contract, shown with the older release itself: its router, its reader and its writer run on
while this release's migrations are applied beneath them, and go on with the schema that they have never seen.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from beamline_cli.local.nats import LocalNats
from beamline_registry.migrate import latest, migrate, packaged
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry
from harness.older_release import NoHistoryError, OlderRelease, unpack
from harness.processes import BEAMLINE, Process, eventually, free_port
from harness.registry_world import extension

READ = """
import asyncio, json, sys
from beamline_registry.reader import PostgresReader
async def main():
    reader = await PostgresReader.connect(sys.argv[1])
    delta = await reader.read(int(sys.argv[2]))
    await reader.close()
    ids = [one.id for one in (*delta.extensions, *delta.policies)]
    print(json.dumps({"revision": delta.revision, "ids": ids}))
asyncio.run(main())
"""
WRITE = """
import asyncio, json, sys
from beamline_contract.projection import ExtensionRecord
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry
async def main():
    registry = await PostgresRegistry.connect(sys.argv[1])
    subject = "beamline.provider." + sys.argv[2] + ".v1"
    record = ExtensionRecord(id=sys.argv[2], type="provider", subject=subject, namespace="default",
        name=sys.argv[2], uid="uid-" + sys.argv[2], generation=1,
        created_at="2026-01-01T00:00:00Z")
    (result,) = await registry.write([Upsert(record, "older")], epoch=int(sys.argv[3]))
    await registry.close()
    print(result.outcome.value)
asyncio.run(main())
"""
SEED = WRITE.replace(
    '(result,) = await registry.write([Upsert(record, "older")], epoch=int(sys.argv[3]))',
    """from beamline_contract.projection import PolicyRecord
    steps = [{"action": "select_provider", "provider_id": record.id}]
    table = PolicyRecord("default", "default", "default", "uid-policy", 1, {"steps": steps, "fallback": []},
        "2026-01-01T00:00:00Z")
    epoch = await registry.acquire_epoch("older")
    result, _ = await registry.write([Upsert(record, "older"), Upsert(table, "older")], epoch=epoch)""",
)
CHECK = """
import asyncio, sys
from beamline_registry import migrate
from beamline_registry.port import SchemaError
print(asyncio.run(migrate.check(sys.argv[1], allow_newer=True)))
try:
    asyncio.run(migrate.migrate(sys.argv[1]))
except SchemaError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> OlderRelease:
    try:
        return unpack(tmp_path_factory.mktemp("older"))
    except NoHistoryError as error:
        # The workflows ask for the whole history; who clones a part of it elsewhere is told what is missing.
        if os.environ.get("GITHUB_ACTIONS") or os.environ.get("GITLAB_CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def test_it_is_older_indeed(older: OlderRelease) -> None:
    assert latest() not in older.migrations
    assert older.migrations == tuple(one.name for one in packaged()[: len(older.migrations)])
    where = older.run("import beamline_registry; print(beamline_registry.__file__)")
    assert where.startswith(str(older.folder))


async def test_its_reader_and_its_writer_go_on_after_the_migration(
    older: OlderRelease, database_url: str
) -> None:
    await migrate(database_url, migrations=packaged()[: len(older.migrations)])
    epoch = older.run(
        "import asyncio, sys\nfrom beamline_registry.postgres import PostgresRegistry\n"
        "async def main():\n    registry = await PostgresRegistry.connect(sys.argv[1])\n"
        "    print(await registry.acquire_epoch('older'))\n    await registry.close()\nasyncio.run(main())",
        database_url,
    ).strip()
    assert older.run(WRITE, database_url, "before", epoch) == "written\n"

    assert (await migrate(database_url))[-1] == latest()

    assert older.run(WRITE, database_url, "after", epoch) == "written\n"
    found = json.loads(older.run(READ, database_url, "0"))
    assert (found["ids"], found["revision"]) == (["after", "before"], 2)
    registry = await PostgresRegistry.connect(database_url)
    new_epoch = await registry.acquire_epoch("newer")
    await registry.write([Upsert(extension("newest"), "anna")], epoch=new_epoch)
    assert await registry.verify_audit() == 3, "rows of both releases are one chain"
    await registry.close()
    assert json.loads(older.run(READ, database_url, "2"))["ids"] == ["newest"]
    accepted, refused = older.run(CHECK, database_url).splitlines()
    assert accepted == "None"
    assert latest() in refused, "an older migration refuses to run backwards"


@pytest.fixture
def served(older: OlderRelease, database_url: str, own_nats: LocalNats, tmp_path: Path) -> Iterator[Process]:
    """The older release's router, and a provider of this release's."""
    http, metrics = free_port(), free_port()
    env = {
        **older.env,
        "NATS_URL": own_nats.url,
        "BEAMLINE_DATABASE_URL": database_url,
        "BEAMLINE_HTTP_PORT": str(http),
        "BEAMLINE_POLL_SECONDS": "0.2",
    }
    router = Process("router", (sys.executable, "-m", "beamline_router"), env, tmp_path / "router.log", http)
    mock = Process(
        "mock",
        (*BEAMLINE, "extension", "run", "mock_provider"),
        {"NATS_URL": own_nats.url, "NATS_SUBJECT": extension("mock").subject, "METRICS_PORT": str(metrics)},
        tmp_path / "mock.log",
        metrics,
    )
    try:
        mock.start()
        yield router
    finally:
        router.stop()
        mock.stop()


async def test_its_router_answers_every_request_while_the_migration_runs_and_takes_in_what_comes_after(
    older: OlderRelease, served: Process, database_url: str
) -> None:
    await migrate(database_url, migrations=packaged()[: len(older.migrations)])
    assert older.run(SEED, database_url, "mock") == "written\n"
    served.start()
    url = f"http://127.0.0.1:{served.port}"
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=url, timeout=10) as client:
            while not stop.is_set():
                answers.append(client.post("/v1/route", json={"prompt": "hello"}).status_code)

    with httpx2.Client(base_url=url, timeout=10) as client:
        eventually(lambda: client.post("/v1/route", json={"prompt": "x"}).status_code == 200, "served")
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            eventually(lambda: len(answers) > 20, "requests before the migration")
            before = len(answers)
            assert await migrate(database_url)
            eventually(lambda: len(answers) > before + 50, "requests after the migration")
            registry = await PostgresRegistry.connect(database_url)
            epoch = await registry.acquire_epoch("newer")
            await registry.write([Upsert(extension("newest"), "anna")], epoch=epoch)
            await registry.close()

            def current() -> bool:
                found: dict[str, Any] = client.get("/readyz").json()
                return found["cache"]["total_extensions"] >= 2 and not found["stale"]["registry"]

            eventually(current, "the older router reads the newer schema")
        finally:
            stop.set()
            asking.join()
    assert set(answers) == {200}, f"{len(answers)} answers"
    print(f"{len(answers)} requests, none lost")
