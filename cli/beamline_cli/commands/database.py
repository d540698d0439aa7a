"""``beamline migrate``: the registry's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import say


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
) -> None:
    """Bring the registry's database up to date."""
    import asyncio

    from beamline_registry import migrate as migrations
    from beamline_registry.port import RegistryUnavailableError, SchemaError

    try:
        if check:
            if (wrong := asyncio.run(migrations.check(database_url))) is not None:
                raise CliError(wrong)
            say("The database is up to date.")
            return
        done = asyncio.run(migrations.migrate(database_url, on_progress=lambda name: say(f"applying {name}")))
    except SchemaError as error:
        raise CliError(str(error), ExitCode.CONFIGURATION) from error
    except RegistryUnavailableError as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    say(f"Applied {len(done)} migrations." if done else "The database is up to date.")
