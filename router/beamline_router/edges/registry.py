"""The registry as a router reads it: PostgreSQL, whose schema is checked once, when it first answers.

Nothing here connects before it is asked to, so a router starts while the database is away. A database of a
newer release is fine: migrations only add until no old release is left, and old routers must serve on
during an upgrade.
"""

from __future__ import annotations

from typing import Final

from beamline_registry import migrate
from beamline_registry.port import Delta, RegistryError
from beamline_registry.reader import PostgresReader

_CONNECTIONS: Final = 1  # one task reads, so one connection is all that a router ever holds


class Registry:
    """``beamline_registry.port.RegistryReader`` on a URL; :meth:`close` when done."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._reader: PostgresReader | None = None
        self._checked = False

    async def open(self) -> None:
        """Prepares the reader. Raises :class:`RegistryError` where the URL is not one of PostgreSQL."""
        if self._reader is None:
            self._reader = await PostgresReader.connect(
                self._url, application="beamline router", connections=_CONNECTIONS
            )

    async def read(self, since: int) -> Delta:
        """See the port. Raises ``SchemaError`` where the database is not what this program can read, and its
        subclass ``SchemaPendingError`` where a migration will make it so.
        """
        await self.open()
        if self._reader is None:
            raise RegistryError("the registry is closed")
        if not self._checked:
            await migrate.require(self._url, allow_newer=True)
            self._checked = True
        return await self._reader.read(since)

    async def close(self) -> None:
        """Closes the connection; more than once is fine."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
