"""``beamline new``: the folder of a new extension."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import say


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="new")(new)


def new(
    extension: Annotated[str, typer.Argument(help="Name of the extension, such as tone-guard.")],
    *,
    kind: Annotated[str, typer.Option(help="pre, validator, provider or post.")],
    language: Annotated[str, typer.Option(help="python, go or node.")] = "python",
    folder: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write into; default: ./EXTENSION.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Make a folder with a working extension: code, tests, Dockerfile, manifest, README.

    It passes `beamline conformance` as it is.
    """
    from beamline_cli.scaffold.render import (
        LANGUAGES,
        BadNameError,
        Extension,
        FilesExistError,
        render,
        write,
    )
    from beamline_contract.names import EXTENSION_TYPES

    known = next((one for one in EXTENSION_TYPES if one == kind), None)
    if known is None:
        raise CliError(f"--kind must be one of {', '.join(EXTENSION_TYPES)}, not {kind!r}", ExitCode.USAGE)
    spoken = next((one for one in LANGUAGES if one == language), None)
    if spoken is None:
        raise CliError(f"--language must be one of {', '.join(LANGUAGES)}, not {language!r}", ExitCode.USAGE)
    try:
        wanted = Extension(extension, known, spoken)
    except BadNameError as error:
        raise CliError(f"EXTENSION {error}", ExitCode.USAGE) from error
    goal = Path(extension) if folder is None else folder
    files = render(wanted)
    try:
        write(goal, files, force=force)
    except FilesExistError as error:
        raise CliError(f"{goal} already holds {error}: --force overwrites them") from error
    except OSError as error:
        raise CliError(f"{goal} can't be written: {error.strerror}", ExitCode.CONFIGURATION) from error
    say(f"{goal}: a {wanted.kind} in {len(files)} files, {', '.join(sorted(files))}")
    say("Next:")
    for line in (
        f"cd {goal}",
        wanted.install(),
        wanted.test(),
        f'beamline conformance {wanted.subject} --command "{wanted.run()}"',
    ):
        say(f"  {line}")
