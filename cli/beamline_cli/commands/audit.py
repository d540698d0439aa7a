"""``beamline audit``: who changed what, whether the log is whole, and how long it is kept."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, say, table

from .look import State

Result = TypeVar("Result")

audit = typer.Typer(
    name="audit",
    help="The audit log: who changed which object, when, from what to what.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="BEAMLINE_DATABASE_URL",
        help="postgresql://user@host:port/database; default: that of the running `beamline up`.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.add_typer(audit)


@audit.command(name="list")
def list_changes(
    object_id: Annotated[str | None, typer.Argument(help="Only of this id, such as pii_guard.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first.")] = 50,
    before: Annotated[
        int | None, typer.Option(min=1, help="Only older than this number: the last one of the page before.")
    ] = None,
    text: Annotated[
        str, typer.Option("--text", "-q", help="Only with this text in object, who, action or what changed.")
    ] = "",
    database_url: DatabaseUrl = None,
    state: State = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
) -> None:
    """List changes, newest first, also of objects that are gone."""
    from beamline_registry.port import AuditQuery, AuditRecord
    from beamline_registry.postgres import PostgresRegistry

    async def read() -> list[AuditRecord]:
        registry = await PostgresRegistry.connect(_url(database_url, state), application="beamline audit")
        try:
            return await registry.audit(
                AuditQuery(object_id=object_id, before=before, limit=limit, text=text)
            )
        finally:
            await registry.close()

    rows = _answer(read())
    if output is Format.TABLE:
        lines = [
            (str(row.sequence), row.timestamp, row.action, f"{row.kind} {row.object_id}", row.changed_by,
             ", ".join(row.changes)[:60])
            for row in rows
        ]  # fmt: skip
        for line in table(("NUMBER", "WHEN", "ACTION", "OBJECT", "WHO", "FIELDS"), lines):
            say(line)
    else:
        found = [asdict(row) for row in rows]
        say(as_json(found) if output is Format.JSON else as_yaml(found))


@audit.command()
def verify(
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="Check this export instead of the database.")
    ] = None,
    database_url: DatabaseUrl = None,
    state: State = None,
) -> None:
    """Check the chain of hashes: finds any row that was edited, removed or moved.

    Exit code 1 where it does not hold, naming the first row.
    """
    from beamline_registry.audit_log import of_lines, verify_export
    from beamline_registry.port import AuditBrokenError
    from beamline_registry.postgres import PostgresRegistry

    async def check() -> int:
        registry = await PostgresRegistry.connect(_url(database_url, state), application="beamline audit")
        try:
            return await registry.verify_audit()
        finally:
            await registry.close()

    try:
        if file is None:
            say(f"The audit log is whole: {_answer(check())} rows.")
            return
        with file.open("rb") as lines:
            end = verify_export(of_lines(lines))
    except AuditBrokenError as error:
        raise CliError(str(error)) from error
    except (OSError, ValueError) as error:
        raise CliError(f"{file}: {error}", ExitCode.CONFIGURATION) from error
    say(f"The export is whole; it ends with the hash {end.hash or '(none)'}.")


@audit.command()
def export(
    object_id: Annotated[str | None, typer.Argument(help="Only of this id (not verifiable).")] = None,
    *,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: stdout.")] = None,
    database_url: DatabaseUrl = None,
    state: State = None,
) -> None:
    """Write every row as a line of JSON, oldest first."""
    from beamline_registry.audit_log import export as rows_of
    from beamline_registry.audit_log import opened, to_line

    async def write(target: Any) -> int:
        count = 0
        async with opened(_url(database_url, state)) as database:
            async for row in rows_of(database, object_id=object_id):
                target.write(to_line(row))
                count += 1
        return count

    with ExitStack() as stack:
        try:
            target = sys.stdout.buffer if out is None else stack.enter_context(out.open("xb"))
        except OSError as error:
            raise CliError(f"{out} can't be written: {error.strerror}", ExitCode.CONFIGURATION) from error
        count = _answer(write(target))
        target.flush()
    if out is not None:
        say(f"{count} rows in {out}")


@audit.command()
def retain(
    months: Annotated[int, typer.Option("--months", min=1, help="Months to keep, the present one too.")],
    *,
    archive: Annotated[
        Path | None, typer.Option("--archive", help="File that gets the rows as JSON lines before they go.")
    ] = None,
    discard: Annotated[bool, typer.Option("--discard", help="Keep no archive of what goes.")] = False,
    database_url: DatabaseUrl = None,
    state: State = None,
) -> None:
    """Take away whole months, oldest first; what is left can still be verified.

    Needs the database user that migrates. A log whose chain does not hold is left as it is.
    """
    from beamline_registry.audit_log import RetentionError, retire
    from beamline_registry.port import AuditBrokenError

    if (archive is None) == (not discard):
        raise CliError("say where the rows go: --archive FILE, or --discard", ExitCode.USAGE)
    with ExitStack() as stack:
        try:
            target = None if archive is None else stack.enter_context(archive.open("xb"))
        except OSError as error:
            raise CliError(f"{archive} can't be written: {error.strerror}", ExitCode.CONFIGURATION) from error
        try:
            retired = _answer(retire(_url(database_url, state), months, archive=target))
        except (RetentionError, AuditBrokenError) as error:
            raise CliError(str(error)) from error
    if not retired.months:
        say(f"Nothing is older than {months} months.")
        return
    say(f"Took away {retired.rows} rows of {', '.join(retired.months)}.")


def _url(database_url: str | None, state: Path | None) -> str:
    if database_url is not None:
        return database_url
    from beamline_cli.up.state import find_running

    return find_running(state).database_url


def _answer(work: Coroutine[Any, Any, Result]) -> Result:
    """What ``work`` gives. Raises :class:`CliError` where the registry does not answer or has no schema."""
    import asyncio

    from beamline_registry.audit_log import RetentionError
    from beamline_registry.port import (
        AuditBrokenError,
        RegistryError,
        RegistryUnavailableError,
    )
    from beamline_sdk import logs

    logs.configure("cli", level="error", silent=True)
    try:
        return asyncio.run(work)
    except (AuditBrokenError, RetentionError):
        raise
    except RegistryUnavailableError as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    except RegistryError as error:
        raise CliError(str(error), ExitCode.CONFIGURATION) from error
