"""``beamline operator``, ``router``, ``admin``, ``extension``: one component as this process.

They are configured by environment variables, as containers are.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, say
from beamline_contract import lean

extension = typer.Typer(
    name="extension",
    help="The extensions that ship with Beamline.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="operator")(operator)
    app.command(name="router")(router)
    app.command(name="admin")(admin)
    app.add_typer(extension)


def router() -> None:
    """Run a router in this process until SIGTERM.

    Environment: BEAMLINE_DATABASE_URL, NATS_URL, NATS_CREDENTIALS_FILE, NATS_NKEY_FILE, NATS_CA_FILE,
    NATS_CERTIFICATE_FILE, NATS_KEY_FILE, NATS_TLS_FIRST, BEAMLINE_HTTP_HOST,
    BEAMLINE_HTTP_PORT, BEAMLINE_POLL_SECONDS, BEAMLINE_SNAPSHOT_FILE, BEAMLINE_MAX_IN_FLIGHT,
    BEAMLINE_API_KEYS, BEAMLINE_ANONYMOUS, BEAMLINE_NATS_KEYS, BEAMLINE_LIMITS_FILE,
    BEAMLINE_TENANT_REQUESTS_PER_SECOND, BEAMLINE_TENANT_BURST, BEAMLINE_TENANT_CONCURRENCY,
    BEAMLINE_ACCESS_LOG, BEAMLINE_GRACE_SECONDS, LOG_LEVEL, LOG_SILENT.
    """
    lean.load(os.environ)
    from pydantic import ValidationError

    from beamline_router import collector
    from beamline_router.app import main

    collector.look_rarely()
    try:
        raise typer.Exit(main())
    except ValidationError as error:
        raise CliError(_settings_sentence(error), ExitCode.CONFIGURATION) from error


def admin() -> None:
    """Run the admin API and the inspector in this process until SIGTERM.

    Environment: BEAMLINE_DATABASE_URL, NATS_URL, BEAMLINE_ADMIN_HTTP_HOST, BEAMLINE_ADMIN_HTTP_PORT,
    BEAMLINE_ADMIN_TOKEN, BEAMLINE_ADMIN_CLUSTER (with KUBECONFIG or the pod's service account) or
    BEAMLINE_ADMIN_FOLDER and BEAMLINE_ADMIN_STATE, BEAMLINE_ADMIN_OIDC_ISSUER, BEAMLINE_ADMIN_OIDC_AUDIENCE,
    LOG_LEVEL, LOG_SILENT.
    """
    lean.load(os.environ)
    from beamline_admin.app import main

    raise typer.Exit(main())


def operator() -> None:
    """Run the operator in this process until SIGTERM.

    Environment: KUBECONFIG or the pod's service account, BEAMLINE_DATABASE_URL, NATS_URL,
    NATS_CREDENTIALS_FILE, LOG_LEVEL, LOG_SILENT, METRICS_PORT.
    """
    lean.load(os.environ)
    from pydantic import ValidationError

    from beamline_operator.app import main

    try:
        raise typer.Exit(main())
    except ValidationError as error:
        raise CliError(_settings_sentence(error), ExitCode.CONFIGURATION) from error


@extension.command(name="run")
def run_extension(
    name: Annotated[str, typer.Argument(help="Name, as `beamline extension list` shows it.")],
) -> None:
    """Serve one extension from this process until SIGTERM.

    Environment: NATS_URL, NATS_SUBJECT, NATS_QUEUE_GROUP, NATS_CREDENTIALS_FILE, BEAMLINE_EXTENSION_ID,
    BEAMLINE_CONFIG, METRICS_PORT, LOG_LEVEL, LOG_SILENT.
    """
    lean.load(os.environ)
    from beamline_extensions.catalogue import UnknownExtensionError, run

    try:
        run(name)
    except UnknownExtensionError as error:
        raise CliError(str(error), ExitCode.USAGE) from error


@extension.command(name="list")
def list_extensions(
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
) -> None:
    """List the extensions that ship with Beamline."""
    from beamline_extensions.catalogue import names

    found = list(names())
    if output is Format.JSON:
        say(as_json(found))
    elif output is Format.YAML:
        say(as_yaml(found))
    else:
        for name in found:
            say(name)


def _settings_sentence(error: Exception) -> str:
    """Every wrong setting with its variable, in one sentence."""
    from pydantic import ValidationError

    assert isinstance(error, ValidationError)
    wrong = [
        ": ".join((*map(_variable, entry["loc"][:1]), entry["msg"].removeprefix("Value error, ")))
        for entry in error.errors()
    ]
    return f"wrong settings in the environment: {'; '.join(wrong)}"


def _variable(setting: int | str) -> str:
    """Of the environment: settings without a name of their own there have the prefix."""
    name = str(setting)
    return name if name.isupper() else f"BEAMLINE_{name.upper()}"
