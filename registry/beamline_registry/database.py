"""Connections to PostgreSQL that always come back: with an answer, or with an error in time.

What runs: a pool of a few connections, opened when they are first needed, so a component starts (and serves
from memory) while the database is away. What is bounded, and by whom:

- *we* wait for one operation (getting a connection, all its commands, the commit) at most ``timeout_s``.
  asyncpg's ``command_timeout`` alone bounds one command, and ``pool.acquire`` waits for ever unless told
  otherwise;
- *the server* ends a statement, or a wait for a lock, after the same time, because a client that gave up
  can't stop it;
- *the server* also ends a transaction that its client left open, so that a writer that was frozen in the
  middle (a paused virtual machine) gives back the registry's lock, and its successor can write.

A connection on which a command timed out, or was cancelled, is closed and not reused: asking a frozen server
for a rollback would only wait again. The server rolls back when the connection goes. The pool opens a new one
next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import asyncpg
import orjson

from .canonical import encode
from .faults import translated
from .port import RegistryError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
    Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

DEFAULT_TIMEOUT_S: Final = 5.0
"""For one operation, all in all. A delta takes milliseconds; routers bound a whole reload by 10 s."""
IDLE_TRANSACTION_S: Final = 10.0
"""After this long the server ends a transaction whose client says nothing; less than an operator's lease."""


_SCHEMES: Final = ("postgresql://", "postgres://")


class Database:
    """A pool with bounds. Opens nothing until first used; ``close`` when done.

    ``opened`` counts its connections so far. Where it has grown, another server may answer under the address.
    """

    _pool: Pool

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.opened = 0

    @classmethod
    async def open(cls, url: str, *, application: str, timeout_s: float, connections: int) -> Database:
        """Prepares the pool. Raises :class:`RegistryError` where ``url`` is not a PostgreSQL URL."""
        if not url.startswith(_SCHEMES):
            raise RegistryError(f"the database URL must start with {' or '.join(_SCHEMES)}")
        database = cls(timeout_s)
        database._pool = await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections,
            timeout=timeout_s,
            command_timeout=timeout_s,
            init=database._prepare,
            server_settings={
                "application_name": application,
                "statement_timeout": str(int(timeout_s * 1000)),
                "lock_timeout": str(int(timeout_s * 1000)),
                "idle_in_transaction_session_timeout": str(int(IDLE_TRANSACTION_S * 1000)),
            },
        )
        return database

    async def close(self) -> None:
        """Closes every connection; those that do not answer in time are dropped."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def transaction(
        self,
        isolation: Literal["read_committed", "repeatable_read"] = "read_committed",
        *,
        readonly: bool = False,
        bounded: bool = True,
    ) -> AsyncIterator[Connection]:
        """One transaction on one connection: committed at the end, rolled back by any exception.

        ``bounded=False`` bounds each command alone, for work whose length follows from the data. Raises what
        :data:`.faults.FAULTS` says.
        """
        with translated():
            async with (
                asyncio.timeout(self._timeout_s if bounded else None),
                self._connection() as connection,
            ):
                transaction = connection.transaction(isolation=isolation, readonly=readonly)
                await transaction.start()
                try:
                    yield connection
                except (TimeoutError, asyncio.CancelledError):
                    raise  # the connection is closed next, which rolls back
                except BaseException:
                    if not connection.is_closed():
                        await transaction.rollback()
                    raise
                await transaction.commit()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = await self._pool.acquire(timeout=self._timeout_s)
        try:
            yield connection
        except (TimeoutError, asyncio.CancelledError):
            connection.terminate()
            raise
        finally:
            await self._pool.release(connection, timeout=self._timeout_s)

    async def _prepare(self, connection: asyncpg.Connection[Any]) -> None:
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=encode, decoder=_decoded, format="text"
        )
        self.opened += 1


def _decoded(text: str) -> object:
    """What is more than a JSON reader takes (a number beyond a double, a thousand levels) stays text: the one
    row that holds it is refused by whoever uses it, and all others are read.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
