"""The map from asyncpg's errors to the registry's."""

from __future__ import annotations

import asyncpg
import pytest

from beamline_registry.faults import FAULTS, translate, translated
from beamline_registry.port import (
    FencedError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    SchemaError,
)


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        pytest.param(TimeoutError(), RegistryUnavailableError, id="no answer in time"),
        pytest.param(ConnectionRefusedError(), RegistryUnavailableError, id="nobody listens"),
        pytest.param(FileNotFoundError(), RegistryUnavailableError, id="no socket"),
        pytest.param(
            asyncpg.ConnectionDoesNotExistError("why"), RegistryUnavailableError, id="connection lost"
        ),
        pytest.param(asyncpg.InterfaceError("pool is closing"), RegistryUnavailableError, id="pool closed"),
        pytest.param(asyncpg.CannotConnectNowError("why"), RegistryUnavailableError, id="starting up"),
        pytest.param(asyncpg.AdminShutdownError("why"), RegistryUnavailableError, id="shutting down"),
        pytest.param(
            asyncpg.TooManyConnectionsError("why"), RegistryUnavailableError, id="no connection free"
        ),
        pytest.param(asyncpg.DiskFullError("why"), RegistryUnavailableError, id="disk full"),
        pytest.param(asyncpg.DeadlockDetectedError("why"), RegistryUnavailableError, id="deadlock"),
        pytest.param(asyncpg.SerializationError("why"), RegistryUnavailableError, id="serialization"),
        pytest.param(asyncpg.QueryCanceledError("why"), RegistryUnavailableError, id="statement timeout"),
        pytest.param(asyncpg.LockNotAvailableError("why"), RegistryUnavailableError, id="lock timeout"),
        pytest.param(asyncpg.ReadOnlySQLTransactionError("why"), RegistryUnavailableError, id="a standby"),
        pytest.param(
            asyncpg.IdleInTransactionSessionTimeoutError("why"), RegistryUnavailableError, id="froze inside"
        ),
        pytest.param(asyncpg.InvalidPasswordError("why"), RegistryDeniedError, id="wrong password"),
        pytest.param(asyncpg.InsufficientPrivilegeError("why"), RegistryDeniedError, id="no privilege"),
        pytest.param(asyncpg.InvalidCatalogNameError("why"), RegistryDeniedError, id="no such database"),
        pytest.param(asyncpg.UndefinedTableError("why"), SchemaError, id="no such table"),
        pytest.param(asyncpg.UndefinedColumnError("why"), SchemaError, id="no such column"),
        pytest.param(asyncpg.CheckViolationError("why"), RegistryError, id="a constraint"),
        pytest.param(asyncpg.ClientConfigurationError("port"), RegistryError, id="a bad URL"),
    ],
)
def test_every_fault_has_its_meaning(raised: Exception, becomes: type[RegistryError]) -> None:
    translation = translate(raised)
    assert type(translation) is becomes


def test_every_error_that_asyncpg_knows_is_translated() -> None:
    known = {
        value for value in vars(asyncpg).values() if isinstance(value, type) and issubclass(value, Exception)
    }
    errors = {error for error in known if not issubclass(error, Warning)}
    roots = tuple(cause for cause, _, _ in FAULTS)
    assert [error.__name__ for error in errors if not issubclass(error, roots)] == []


def test_no_row_hides_behind_a_wider_one() -> None:
    causes = [cause for cause, _, _ in FAULTS]
    hidden = [
        cause.__name__
        for at, cause in enumerate(causes)
        if any(issubclass(cause, wider) for wider in causes[:at])
    ]
    assert hidden == []


def test_the_cause_is_kept_and_told() -> None:
    with pytest.raises(RegistryUnavailableError, match="not connect: refused") as caught, translated():
        raise ConnectionRefusedError("could not connect: refused")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_what_the_server_quotes_of_a_row_is_not_told() -> None:
    violation = asyncpg.CheckViolationError.new(
        {"M": "new row violates check", "D": "Failing row contains (sk-1).", "C": "23514"}
    )
    assert "sk-1" in str(violation)
    assert str(translate(violation)) == "the database refuses: new row violates check"


def test_what_is_ours_already_or_nobodys_passes_through() -> None:
    with pytest.raises(FencedError, match="old"), translated():
        raise FencedError("old")
    with pytest.raises(ZeroDivisionError), translated():
        raise ZeroDivisionError
