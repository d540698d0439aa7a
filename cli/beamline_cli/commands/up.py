"""``beamline up``: the whole system on this machine, without a cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class LogLevel(StrEnum):
    """Values of ``--log-level``."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="up")(up)


def up(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with manifests, read with all below it.")
    ],
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="HTTP port of the router; 0 chooses a free one.")
    ] = 8080,
    host: Annotated[str, typer.Option(help="Address that the router listens on.")] = "127.0.0.1",
    state: Annotated[
        Path | None,
        typer.Option(
            envvar="BEAMLINE_STATE",
            help="Folder for data and logs. Default: one per DIR under $XDG_STATE_HOME/beamline.",
        ),
    ] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Keep nothing: data goes when it stops.")
    ] = False,
    nats_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of NATS; 0 chooses a free one.")] = 0,
    admin: Annotated[
        bool, typer.Option("--admin/--no-admin", help="Serve the admin API and the inspector.")
    ] = True,
    admin_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the admin API; 0 chooses a free one.")
    ] = 0,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow edits of the files.")] = True,
    log_level: Annotated[
        LogLevel, typer.Option(help="Level of the logs that the processes write.")
    ] = LogLevel.INFO,
) -> None:
    """Run the manifests of DIR on this machine, without a cluster.

    PostgreSQL, NATS, the router and the extensions are local processes. It ends with a table of what runs
    where and a curl line to try, then follows edits of the files. Ctrl-C stops everything; pressed twice, at
    once. Data is kept for the next start, unless --ephemeral.
    """
    from beamline_cli.faults import CliError, ExitCode
    from beamline_cli.up.plan import Plan
    from beamline_cli.up.run import run

    if ephemeral and state is not None:
        raise CliError(
            "--ephemeral and --state exclude each other: one keeps nothing, the other says where",
            ExitCode.USAGE,
        )
    plan = Plan(
        folder=folder,
        host=host,
        port=port,
        nats_port=nats_port,
        state=state,
        ephemeral=ephemeral,
        watch=watch,
        admin=admin,
        admin_port=admin_port,
        log_level=log_level.value,
    )
    raise typer.Exit(run(plan))
