"""Numbered migrations: which the database has, which it lacks, and bringing it up to date.

A migration is a file ``NNNN_name.sql``. Each is applied once, in order, in a transaction of its own, and
recorded in ``schema_migrations`` with the SHA-256 of its text. Whoever migrates holds an advisory lock of the
database meanwhile, so of several that start at once one works and the others find nothing left to do.

What does not add up is refused before anything is changed: a file that was edited after it was applied, one
that is missing here or there, and a database that is newer than this program.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import asyncpg

from .faults import translated
from .port import RegistryUnavailableError, SchemaError, SchemaPendingError

if TYPE_CHECKING:
    Connection: TypeAlias = "asyncpg.Connection[Any]"

T = TypeVar("T")

CONNECT_S: Final = 10.0
"""For reaching the database, and for reading what it has."""
LOCK_S: Final = 60.0
"""For somebody else's migration to end."""
STATEMENT_S: Final = 600.0
"""For one migration."""
WAIT_S: Final = 1.0
"""Between two looks of who waits."""
REMIND_S: Final = 30.0
"""Between two lines of who waits for the same thing."""

_LOCK_ID: Final = 0x6265616D  # "beam": any number, as long as nobody else uses it in this database
_REINSTALL: Final = "`pip install --force-reinstall beamline`"
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name        text        PRIMARY KEY,
    checksum    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_migrations IS 'Migrations that this database has';
COMMENT ON COLUMN schema_migrations.name IS 'File name without .sql; the order is the order of the numbers';
COMMENT ON COLUMN schema_migrations.checksum IS 'SHA-256 of the file as it was applied';
COMMENT ON COLUMN schema_migrations.applied_at IS 'When it was applied';
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. ``name`` is ``0001_registry``; line ends of a checkout do not change ``checksum``."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.replace("\r\n", "\n").encode()).hexdigest()


def packaged() -> tuple[Migration, ...]:
    """The migrations of this program, in order."""
    folder = files("beamline_registry") / "migrations"
    found = [
        Migration(entry.name.removesuffix(".sql"), entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return tuple(sorted(found, key=lambda migration: migration.name))


def latest() -> str:
    """The name of this program's newest migration."""
    return packaged()[-1].name


def pending(known: Iterable[Migration], applied: Mapping[str, str]) -> list[Migration]:
    """What a database that has ``applied`` (name to checksum) lacks. Raises :class:`SchemaError`."""
    migrations = {migration.name: migration for migration in known}
    newest_known, newest_applied = max(migrations, default=""), max(applied, default="")
    for name in sorted(applied):
        if name not in migrations:
            if name > newest_known:
                raise SchemaError(
                    f"the database has migration {newest_applied}, but this program knows none after "
                    f"{newest_known}: install the newer release (`pip install --upgrade beamline`)"
                )
            raise SchemaError(
                f"the database has migration {name}, which this program lacks: "
                f"install the release that applied it ({_REINSTALL})"
            )
        if applied[name] != migrations[name].checksum:
            raise SchemaError(
                f"migration {name} was edited after it was applied to this database: "
                f"put the file back as released ({_REINSTALL}) and write a new migration instead"
            )
    missing = [migrations[name] for name in sorted(migrations) if name not in applied]
    if missing and missing[0].name < newest_applied:
        raise SchemaError(
            f"the database has migration {newest_applied} but not {missing[0].name}, which comes before it: "
            "restore it from a backup, or start with an empty database and run `beamline migrate`"
        )
    return missing


async def migrate(
    url: str,
    *,
    on_progress: Callable[[str], None] | None = None,
    lock_s: float = LOCK_S,
    migrations: Iterable[Migration] | None = None,
) -> list[str]:
    """Applies what the database lacks; returns the names, empty where it was up to date.

    ``on_progress`` gets each name before it is applied. ``lock_s`` bounds the wait for somebody else's
    migration. Raises :class:`SchemaError` or :class:`.port.RegistryUnavailableError`; what was applied before
    that stays, a migration that failed leaves nothing.
    """
    known = packaged() if migrations is None else tuple(migrations)
    done: list[str] = []
    async with _connection(url) as connection:
        await _lock(connection, lock_s)
        await connection.execute(_TABLE)
        for migration in pending(known, await _applied(connection)):
            if on_progress is not None:
                on_progress(migration.name)
            await _apply(connection, migration)
            done.append(migration.name)
    return done


async def check(url: str, *, allow_newer: bool = False) -> str | None:
    """None where the database is up to date, else one sentence that says what is wrong and what helps.

    ``allow_newer`` accepts a database that a newer release has migrated, as routers do during an upgrade:
    migrations only add until no old release is left. Raises :class:`.port.RegistryUnavailableError`.
    """
    try:
        await require(url, allow_newer=allow_newer)
    except SchemaError as error:
        return str(error)
    return None


async def require(url: str, *, allow_newer: bool = False) -> None:
    """As :func:`check`, but raises: :class:`SchemaPendingError` where a migration is still to come, and
    :class:`SchemaError` where none would help.
    """
    known = packaged()
    async with _connection(url) as connection:
        if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
            raise SchemaPendingError("the database holds no registry yet: run `beamline migrate`")
        applied = await _applied(connection)
    if allow_newer:
        applied = {name: checksum for name, checksum in applied.items() if name <= known[-1].name}
    missing = [migration.name for migration in pending(known, applied)]
    if missing:
        raise SchemaPendingError(f"the database lacks {', '.join(missing)}: run `beamline migrate`")


async def wait(
    attempt: Callable[[], Awaitable[T]],
    *,
    timeout_s: float,
    on_wait: Callable[[str, float], None],
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> T:
    """Calls ``attempt`` once a second until it succeeds, for at most ``timeout_s`` seconds.

    A migration that is still to come and a database that does not answer, or does not let us in yet, are
    waited for; any other :class:`SchemaError` ends the wait at once, because time does not heal it.
    ``on_wait`` gets the reason and the seconds waited so far: at first, when the reason changes, and every
    :data:`REMIND_S`. Raises :class:`.port.RegistryUnavailableError` with the last reason when time is up.
    """
    began = now()
    said, said_at = "", began
    while True:
        try:
            return await attempt()
        except (SchemaPendingError, RegistryUnavailableError) as error:
            reason, last = str(error), error
        waited = now() - began
        if waited >= timeout_s:
            raise RegistryUnavailableError(f"gave up after {timeout_s:g} s: {reason}") from last
        if reason != said or now() - said_at >= REMIND_S:
            on_wait(reason, waited)
            said, said_at = reason, now()
        await sleep(min(WAIT_S, timeout_s - waited))


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[Connection]:
    with translated():
        connection = await asyncpg.connect(
            url,
            timeout=CONNECT_S,
            command_timeout=CONNECT_S,
            server_settings={"application_name": "beamline migrate"},
        )
        try:
            yield connection
        except (TimeoutError, asyncio.CancelledError):
            connection.terminate()
            raise
        finally:
            await connection.close(timeout=CONNECT_S)


async def _lock(connection: Connection, lock_s: float) -> None:
    """Takes the advisory lock for as long as the connection lives."""
    await connection.execute(f"SET lock_timeout = {max(1, int(lock_s * 1000))}")
    try:
        await connection.fetchval("SELECT pg_advisory_lock($1)", _LOCK_ID, timeout=lock_s + CONNECT_S)
    except asyncpg.LockNotAvailableError as error:
        raise RegistryUnavailableError(
            f"another migration of this database did not end within {lock_s:g} s: "
            "when it is done, run `beamline migrate` again"
        ) from error


async def _applied(connection: Connection) -> dict[str, str]:
    rows = await connection.fetch("SELECT name, checksum FROM schema_migrations")
    return {row["name"]: row["checksum"] for row in rows}


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql, timeout=STATEMENT_S)
            await connection.execute(
                "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)",
                migration.name,
                migration.checksum,
            )
    except asyncpg.PostgresSyntaxError as error:
        raise SchemaError(f"migration {migration.name} is not valid SQL: {error}") from error
