"""What asyncpg and the network raise, translated into the registry's errors: one map, used by every call.

The first row whose class matches wins, so narrower classes stand above wider ones. Whatever may pass by
itself (no connection, no answer in time, a failover, a deadlock) is :class:`RegistryUnavailableError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from .port import RegistryDeniedError, RegistryError, RegistryUnavailableError, SchemaError

MIGRATE: Final = "run `beamline migrate`"

FAULTS: Final[tuple[tuple[type[BaseException], type[RegistryError], str], ...]] = (
    (TimeoutError, RegistryUnavailableError, "the database does not answer in time"),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        RegistryDeniedError,
        "the database refuses the credentials",
    ),
    (asyncpg.InsufficientPrivilegeError, RegistryDeniedError, "the database refuses the operation"),
    (asyncpg.InvalidCatalogNameError, RegistryDeniedError, "the database does not exist"),
    (
        asyncpg.UndefinedTableError,
        SchemaError,
        f"the database's schema does not fit this program ({MIGRATE})",
    ),
    (
        asyncpg.UndefinedColumnError,
        SchemaError,
        f"the database's schema does not fit this program ({MIGRATE})",
    ),
    (
        asyncpg.UndefinedFunctionError,
        SchemaError,
        f"the database's schema does not fit this program ({MIGRATE})",
    ),
    (asyncpg.QueryCanceledError, RegistryUnavailableError, "the database does not answer in time"),
    (asyncpg.LockNotAvailableError, RegistryUnavailableError, "another writer holds the registry"),
    (
        asyncpg.OperatorInterventionError,
        RegistryUnavailableError,
        "the database is shutting down or starting",
    ),
    (asyncpg.InsufficientResourcesError, RegistryUnavailableError, "the database lacks resources"),
    (asyncpg.TransactionRollbackError, RegistryUnavailableError, "the database rolled the transaction back"),
    (asyncpg.ReadOnlySQLTransactionError, RegistryUnavailableError, "the database is read-only (a standby?)"),
    (
        asyncpg.IdleInTransactionSessionTimeoutError,
        RegistryUnavailableError,
        "the transaction was idle for too long",
    ),
    (
        asyncpg.InvalidCachedStatementError,
        RegistryUnavailableError,
        "the schema changed while a query was prepared",
    ),
    (asyncpg.ClientConfigurationError, RegistryError, "the database URL can't be used"),
    (asyncpg.PostgresConnectionError, RegistryUnavailableError, "the connection to the database is lost"),
    (asyncpg.InternalClientError, RegistryUnavailableError, "the connection to the database is lost"),
    (asyncpg.InterfaceError, RegistryUnavailableError, "the connection to the database is lost"),
    (asyncpg.PostgresError, RegistryError, "the database refuses"),
    (OSError, RegistryUnavailableError, "the database can't be reached"),
)
"""(what was raised, what it becomes, in words)."""


def translate(error: BaseException) -> RegistryError | None:
    """The registry's error for one of asyncpg or the network; None where it is neither."""
    for cause, becomes, words in FAULTS:
        if isinstance(error, cause):
            detail = str(error).strip().partition("\n")[0]  # the lines after it may quote a row's content
            return becomes(f"{words}: {detail}" if detail else words)
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Raises what happens inside as the registry's error, chained to its cause."""
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:
        if (ours := translate(error)) is not None:
            raise ours from error
        raise
