"""What a router has of PostgreSQL: reading what is newer than a revision, as the role ``beamline_router``.

Revisions are comparable within one registry only. A standby that takes over without the primary's last
transactions, or a backup that is restored, gives the revisions after its own a second time, to other rows;
once it has passed the reader's, the revision alone says nothing is missing. So a delta on a new connection
also holds what was written since the newest revision that was read, by the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from .database import DEFAULT_TIMEOUT_S, Database
from .port import Delta, Tombstone
from .rows import SELECT_EXTENSIONS, SELECT_POLICIES, extension_of, policy_of

ROWS_AT_A_TIME: Final = 16
"""Rows decoded in one turn of the event loop, about a quarter of a millisecond's worth: a router that reads
its whole table again goes on serving.
"""
_SELECT_STONES: Final = (
    "SELECT kind, id, revision FROM (SELECT *, removed_at AS updated_at FROM tombstones) AS stones"
)


@dataclass(frozen=True, slots=True)
class _Read:
    """The last answer: its revision, when the database wrote that, and the connections opened until then."""

    revision: int
    written_at: datetime | None
    opened: int


class PostgresReader:
    """:class:`.port.RegistryReader` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: _Read | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        application: str = "beamline",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        connections: int = 4,
    ) -> Self:
        """Prepares connections, but opens none: a component starts while the database is away.

        ``timeout_s`` bounds every operation. ``application`` shows in pg_stat_activity. Raises
        :class:`.port.RegistryError` where ``url`` is not a PostgreSQL URL.
        """
        return cls(
            await Database.open(url, application=application, timeout_s=timeout_s, connections=connections)
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self._database.close()

    async def ping(self) -> None:
        """Raises :class:`.port.RegistryError` where the database does not answer."""
        async with self._database.transaction(readonly=True) as connection:
            await connection.execute("SELECT 1")

    async def read(self, since: int) -> Delta:
        """See :meth:`.port.RegistryReader.read`. One REPEATABLE READ view, so the parts fit together.

        Each command is bounded, the whole by whoever calls: a busy router takes a table of thousands between
        its requests, a few rows a turn.
        """
        async with self._database.transaction("repeatable_read", readonly=True, bounded=False) as connection:
            counter = await connection.fetchrow("SELECT revision, horizon, updated_at FROM registry_revision")
            revision, horizon, written_at = counter if counter is not None else (0, 0, None)
            read = _Read(revision, written_at, self._database.opened)
            last = self._last if self._last is not None and self._last.revision == since else None
            if 0 < since == revision >= horizon and (last is None or last.written_at == written_at):
                self._last = read
                return Delta(revision=revision, full=False)
            # Ahead of the registry: the database was replaced by an older one.
            full = since <= 0 or since < horizon or since > revision
            newer = "revision > $1"
            after: list[object] = [-1 if full else since]
            if not full and last is not None and (last.opened != read.opened or since == revision):
                newer += " OR updated_at > $2"
                after.append(last.written_at)
            extensions = [
                extension_of(row)
                async for row in connection.cursor(
                    f"{SELECT_EXTENSIONS} WHERE {newer} ORDER BY id", *after, prefetch=ROWS_AT_A_TIME
                )
            ]
            policies = [
                policy_of(row)
                async for row in connection.cursor(
                    f"{SELECT_POLICIES} WHERE {newer} ORDER BY id", *after, prefetch=ROWS_AT_A_TIME
                )
            ]
            removed = [] if full else await connection.fetch(
                f"{_SELECT_STONES} WHERE {newer} ORDER BY kind, id", *after
            )  # fmt: skip
        self._last = read
        return Delta(
            revision=revision,
            full=full,
            extensions=extensions,
            policies=policies,
            removed=[Tombstone(row["kind"], row["id"], row["revision"]) for row in removed],
        )
