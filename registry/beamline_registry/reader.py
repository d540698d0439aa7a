"""What a router has of PostgreSQL: reading what is newer than a revision, as the role ``beamline_router``."""

from __future__ import annotations

from typing import Final, Self

from .database import DEFAULT_TIMEOUT_S, Database
from .port import Delta, Tombstone
from .rows import SELECT_EXTENSIONS, SELECT_POLICIES, extension_of, policy_of

ROWS_AT_A_TIME: Final = 16
"""Rows decoded in one turn of the event loop, about a quarter of a millisecond's worth: a router that reads
its whole table again goes on serving.
"""


class PostgresReader:
    """:class:`.port.RegistryReader` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        """See :meth:`.port.RegistryReader.read`. One REPEATABLE READ view, so the parts fit together."""
        async with self._database.transaction("repeatable_read", readonly=True) as connection:
            counter = await connection.fetchrow("SELECT revision, horizon FROM registry_revision")
            revision, horizon = (counter["revision"], counter["horizon"]) if counter is not None else (0, 0)
            if 0 < since == revision and since >= horizon:
                return Delta(revision=revision, full=False)
            # Ahead of the registry: the database was replaced by an older one.
            full = since <= 0 or since < horizon or since > revision
            after = -1 if full else since
            extensions = [
                extension_of(row)
                async for row in connection.cursor(
                    f"{SELECT_EXTENSIONS} WHERE revision > $1 ORDER BY id", after, prefetch=ROWS_AT_A_TIME
                )
            ]
            policies = [
                policy_of(row)
                async for row in connection.cursor(
                    f"{SELECT_POLICIES} WHERE revision > $1 ORDER BY id", after, prefetch=ROWS_AT_A_TIME
                )
            ]
            removed = [] if full else await connection.fetch(
                "SELECT kind, id, revision FROM tombstones WHERE revision > $1 ORDER BY kind, id", after
            )  # fmt: skip
        return Delta(
            revision=revision,
            full=full,
            extensions=extensions,
            policies=policies,
            removed=[Tombstone(row["kind"], row["id"], row["revision"]) for row in removed],
        )
