"""``beamline migrate``: the registry's schema."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import say

T = TypeVar("T")


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="migrate")(migrate)


def migrate(
    database_url: Annotated[
        str, typer.Option(envvar="BEAMLINE_DATABASE_URL", help="postgresql://user@host:port/database")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 where something is pending.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait for the database to answer, and with --check for somebody else's migration. "
            "Exit code 69 when --timeout has passed.",
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, max=86_400, help="Seconds that --wait waits.")
    ] = 600.0,
) -> None:
    """Bring the registry's database up to date.

    A database that a newer release has migrated, or whose migrations were edited, is refused with exit
    code 78: migrations never run backwards.
    """
    import asyncio

    from beamline_registry import migrate as migrations
    from beamline_registry.port import RegistryUnavailableError, SchemaError, SchemaPendingError

    async def apply() -> list[str]:
        return await migrations.migrate(database_url, on_progress=lambda name: say(f"applying {name}"))

    async def look() -> list[str]:
        await migrations.require(database_url)
        return []

    attempt = look if check else apply
    try:
        done = asyncio.run(_waited(attempt, timeout) if wait else attempt())
    except SchemaPendingError as error:
        raise CliError(str(error)) from error
    except SchemaError as error:
        raise CliError(str(error), ExitCode.CONFIGURATION) from error
    except RegistryUnavailableError as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    say(f"Applied {len(done)} migrations." if done else "The database is up to date.")


async def _waited(attempt: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    from beamline_registry import migrate as migrations

    def tell(reason: str, seconds: float) -> None:
        say(f"waiting ({seconds:.0f} of {timeout_s:g} s): {reason}")

    return await migrations.wait(attempt, timeout_s=timeout_s, on_wait=tell)
