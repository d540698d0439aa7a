"""``beamline keys``: API keys for the router's doors."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, complain, say, table

keys = typer.Typer(
    name="keys",
    help="API keys for the doors of routers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.add_typer(keys)


@keys.command(name="new")
def new(
    *,
    tenant: Annotated[str, typer.Option(help="Tenant that the key decides.")],
    environment: Annotated[
        str | None, typer.Option(help="Environment that it decides; default: the caller says it.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 90d, 12h, 30m, or a time as 2027-01-31T00:00:00Z.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="Whose it is, for people.")] = None,
    append: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add the entry to this file of keys.")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
) -> None:
    """Make a key: printed once, and the hashed entry for the router's file of keys.

    The router never needs the key itself. Two entries of one tenant may be good at the same time, so a key is
    rotated by adding the new entry, changing the clients, and taking the old entry out.
    """
    import secrets

    from beamline_router.core.api_keys import KeyFaultError, new_key

    try:
        text, entry = new_key(tenant, environment, _until(expires), secrets.token_bytes)
    except KeyFaultError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    if description is not None:
        entry["description"] = description
    if append is not None:
        _append(append, entry)
    document = {"key": text, "entry": entry}
    if output is Format.JSON:
        say(as_json(document))
    elif output is Format.YAML:
        say(as_yaml(document))
    elif output is Format.NAME:
        say(text)
    else:
        say(text)
        complain("This key is shown once: hand it to its user. Only the entry is stored.")
        if append is not None:
            complain(f"The entry was added to {append}; routers that read it take it up within a second.")
        else:
            complain("The entry for the file or Secret that BEAMLINE_API_KEYS names:")
            say(as_yaml({"keys": [entry]}))


@keys.command(name="check")
def check(
    path: Annotated[Path, typer.Argument(help="A file of keys, or a folder with such files.")],
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
) -> None:
    """Read a file of keys as a router would, and list its entries without their hashes."""
    ring = _read(path)
    now = datetime.now(UTC).timestamp()
    rows = [
        {
            "id": key.id,
            "tenant": key.tenant,
            "environment": key.environment,
            "expires": None if key.expires_at is None else _shown(key.expires_at),
            "expired": key.expires_at is not None and key.expires_at <= now,
        }
        for key in ring.keys
    ]
    if output is Format.JSON:
        say(as_json(rows))
    elif output is Format.YAML:
        say(as_yaml(rows))
    elif output is Format.NAME:
        for row in rows:
            say(str(row["id"]))
    elif not rows:
        say("No keys: a router with this file serves callers on its own machine only.")
    else:
        lines = [
            (
                str(row["id"]),
                str(row["tenant"]),
                str(row["environment"] or "any"),
                str(row["expires"] or "never") + (" (expired)" if row["expired"] else ""),
            )
            for row in rows
        ]
        for line in table(("ID", "TENANT", "ENVIRONMENT", "EXPIRES"), lines):
            say(line)


def _until(expires: str | None) -> str | None:
    if expires is None:
        return None
    span = _SPAN.fullmatch(expires)
    if span is None:
        return expires
    end = datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})
    return _shown(end.timestamp())


def _shown(unix: float) -> str:
    return datetime.fromtimestamp(int(unix), UTC).isoformat().replace("+00:00", "Z")


def _read(path: Path) -> Any:
    from beamline_router.core.api_keys import read_keys, ring_of
    from beamline_router.edges.key_files import SourceError, Watched

    try:
        return Watched(
            "API keys", path, lambda found: ring_of(k for name, doc in found for k in read_keys(doc, name))
        ).value
    except SourceError as error:
        raise CliError(str(error), ExitCode.CONFIGURATION) from error


def _append(path: Path, entry: dict[str, Any]) -> None:
    """Adds one entry; the file is replaced as a whole, readable by its owner only where it is new."""
    import yaml

    entries: list[Any] = []
    mode = 0o600
    if path.exists():
        _read(path)
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = document.get("keys", document) if isinstance(document, dict) else document
        entries = [found] if isinstance(found, dict) else list(found or ())
        mode = path.stat().st_mode & 0o777
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(file, "w", encoding="utf-8") as out:
            out.write(as_yaml({"keys": [*entries, entry]}) + "\n")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise CliError(f"{path} can't be written: {error.strerror}", ExitCode.CONFIGURATION) from error
