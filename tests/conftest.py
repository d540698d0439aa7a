"""Real parts for every test that wants them: PostgreSQL once per worker, nats-server once per worker or of
one's own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from hypothesis import settings

from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPostgres

# How long an example takes says more of the machine than of the code.
settings.register_profile("beamline", deadline=None)
settings.load_profile("beamline")

HERE = Path(__file__).resolve().parent
FAST_AND_UNSAFE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
}


BEFORE_A_RELEASE = ("load", "chaos")
"""Suites of minutes: collected only where they are named, as `make test-load` and `make test-chaos` do."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    parts = collection_path.relative_to(HERE).parts if collection_path.is_relative_to(HERE) else ()
    if not parts or parts[0] not in BEFORE_A_RELEASE:
        return None
    return None if any(f"tests/{parts[0]}" in argument for argument in config.args) else True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Keeps the promise of ``xdist_group``: pytest-xdist 3.8 writes an item's group to an attribute that
    pytest 9.2 no longer reads, so that every group was spread over all workers.
    """
    for item in items:
        grouped = vars(item).get("_nodeid")
        if grouped is not None and item.nodeid != grouped:
            item._id = type(item._id).parse(grouped)


@pytest.fixture(scope="session", autouse=True)
def _loggers_stay_open() -> Iterator[None]:
    """No logger is cached: one that a component's own configuration had cached could never be captured again
    by the tests that follow in the same worker.
    """
    configure = structlog.configure

    def uncached(**settings: Any) -> None:
        configure(**{**settings, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", uncached)
        yield


@pytest.fixture(autouse=True)
def _logging_starts_anew() -> Iterator[None]:
    """A level that one test has set does not silence the next."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres() -> Iterator[LocalPostgres]:
    """A running PostgreSQL, shared by the tests of one worker: use ``database_url`` for a database of your
    own.
    """
    folder = Path(tempfile.mkdtemp(prefix="beamline-test-pg-"))
    server = LocalPostgres(folder / "data", settings=FAST_AND_UNSAFE)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_postgres() -> Iterator[LocalPostgres]:
    """A PostgreSQL of this test alone, for tests that stop, freeze or kill it."""
    folder = Path(tempfile.mkdtemp(prefix="beamline-test-pg-"))
    server = LocalPostgres(folder / "data", settings=FAST_AND_UNSAFE)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def database_url(postgres: LocalPostgres) -> AsyncIterator[str]:
    """The URL of a fresh, empty database, dropped afterwards."""
    import asyncpg

    name = f"test_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    yield postgres.url(name)
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await connection.close()


other_database_url = database_url
"""A second one, for what has two registries."""


@pytest.fixture(scope="session")
def nats_server() -> Iterator[LocalNats]:
    """A running nats-server, shared by the tests of one worker: use subjects of your own."""
    server = LocalNats()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_nats() -> Iterator[LocalNats]:
    """A nats-server of this test alone, for tests that stop, freeze or kill it."""
    server = LocalNats()
    server.start()
    yield server
    server.stop()
