"""``beamline validate``: manifests checked without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, complain, say

if TYPE_CHECKING:
    from beamline_contract.objects import BeamlineObject
    from beamline_operator.edges.manifests import FileFault


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="validate")(validate)


def validate(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATHS...", help="Files, or folders with all below them.")
    ],
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
) -> None:
    """Check manifests with the API server's rules, offline.

    Each fault is a line: `file:line: field: message`.
    """
    files = files_of(paths)
    faults, objects = checked(files)
    names = [str(one.key) for one in objects]
    if output in {Format.JSON, Format.YAML}:
        listed = [
            {"file": f.place.file, "line": f.place.line, "field": f.field, "message": f.message}
            for f in faults
        ]
        found = {"valid": names, "faults": listed}
        say(as_json(found) if output is Format.JSON else as_yaml(found))
    else:
        for fault in faults:
            say(str(fault))
        for name in names if output is Format.NAME else ():
            say(name)
    if faults:
        raise CliError(f"{_count(len(faults), 'fault')} in {_count(len(files), 'file')}")
    if not names:
        raise CliError("no Extension or RoutingPolicy found", ExitCode.CONFIGURATION)
    if output in {Format.TABLE, Format.WIDE}:
        say(f"{_count(len(names), 'object')} in {_count(len(files), 'file')}: all valid.")


def files_of(paths: list[Path]) -> list[Path]:
    """The files that are named, and those in the folders that are. Raises :class:`CliError`."""
    from beamline_operator.edges.manifests import manifest_files

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                files.extend(manifest_files(path))
            except OSError as error:
                raise CliError(f"{path} can't be read: {error.strerror}", ExitCode.CONFIGURATION) from error
        elif path.exists():
            files.append(path)
        else:
            raise CliError(f"{path} does not exist", ExitCode.USAGE)
    return files


def checked(files: list[Path]) -> tuple[list[FileFault], list[BeamlineObject]]:
    """Every fault, and the objects that have none."""
    from beamline_cli.configs import config_faults_of, step_faults_of
    from beamline_contract.model import Fault
    from beamline_contract.objects import ObjectKey, RoutingPolicy
    from beamline_operator.edges.manifests import Document, Place, parse, read_file

    faults: list[FileFault] = []
    objects: list[BeamlineObject] = []
    seen: dict[ObjectKey, Place] = {}
    found: list[tuple[Document, BeamlineObject]] = []
    for file in files:
        content = read_file(file, str(file))
        faults.extend(content.faults)
        for document in content.documents:
            if not document.ours:
                complain(
                    f"{document.place}: {document.data.get('kind', 'document')} is not of Beamline: skipped"
                )
                continue
            parsed = parse(document)
            if isinstance(parsed, tuple):
                faults.extend(parsed)
            elif parsed.key in seen:
                message = f"{parsed.key} is defined twice, first at {seen[parsed.key]}"
                faults.extend(document.located([Fault("metadata.name", message)]))
            else:
                seen[parsed.key] = document.place
                found.append((document, parsed))
    every = [parsed for _, parsed in found]
    for document, parsed in found:
        wrong = list(config_faults_of(parsed))
        if isinstance(parsed, RoutingPolicy):
            wrong.extend(step_faults_of(parsed, every))
        faults.extend(document.located(wrong))
        if not wrong:
            objects.append(parsed)
    return faults, objects


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
