"""The command ``beamline``: one application, one module per group of commands.

Modules of commands import only typer and what is small; each command imports its component when it is called,
so that ``--help`` and shell completion answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from beamline_contract import __version__

from .commands import (
    audit,
    breakers,
    check,
    cluster,
    components,
    conformance,
    database,
    diff,
    doctor,
    explain,
    invoke,
    keys,
    logs,
    look,
    new,
    suspend,
    top,
    trace,
    up,
)
from .faults import EXIT_CODES_HELP, CliError, ExitCode

app = typer.Typer(
    name="beamline",
    help="Extensions for language-model routing, managed as Kubernetes custom resources.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"beamline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Extensions for language-model routing, managed as Kubernetes custom resources."""


up.add_to(app)
look.add_to(app)
logs.add_to(app)
top.add_to(app)
invoke.add_to(app)
check.add_to(app)
new.add_to(app)
conformance.add_to(app)
doctor.add_to(app)
explain.add_to(app)
diff.add_to(app)
suspend.add_to(app)
cluster.add_to(app)
database.add_to(app)
keys.add_to(app)
breakers.add_to(app)
trace.add_to(app)
audit.add_to(app)
components.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; prints one sentence where something is wrong."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="beamline")
    except SystemExit as end:
        return (
            end.code if isinstance(end.code, int) else ExitCode.OK if end.code is None else ExitCode.FAILURE
        )
    except CliError as error:
        return _fail(error, error.code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- so that the interpreter's last flush is quiet
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001 -- a person gets a sentence, not a traceback
        return _fail(error, ExitCode.FAILURE)
    return ExitCode.OK


def _fail(error: Exception, code: int) -> int:
    if os.environ.get("BEAMLINE_DEBUG"):
        traceback.print_exception(error)
    text = " ".join(str(error).split()) or "unknown error"
    if not isinstance(error, CliError):
        text = f"{type(error).__name__}: {text} (BEAMLINE_DEBUG=1 shows where)"
    sys.stderr.write(f"beamline: {text}\n")
    return int(code)
