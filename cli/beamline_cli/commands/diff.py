"""``beamline diff``: what a folder of manifests would change for requests."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, complain, paint, say
from beamline_cli.place import Context, Kubeconfig, Place, find_place

from .look import State

if TYPE_CHECKING:
    from beamline_cli.routing.classes import Rerouted
    from beamline_cli.routing.compare import RoutingDiff
    from beamline_cli.routing.sources import Objects
    from beamline_cli.routing.told import Change

CHANGES: Final = 1
"""Exit code where something would change, as `kubectl diff` has it; errors are above."""
_SOFTWARE: Final = 70
_MOST: Final = 50
_WIDE: Final = 80
_SIGNS: Final = {
    "created": "+",
    "removed": "-",
    "changed": "~",
    "appears": "+",
    "vanishes": "-",
    "changes": "~",
}
_COLOURS: Final = {"+": "green", "-": "red", "~": "yellow"}


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="diff")(diff)


def diff(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with manifests, or one file.")],
    *,
    against: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Compare with this folder, and with nothing that runs."),
    ] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state: State = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of manifests that state none.")
    ] = "default",
    prune: Annotated[
        bool,
        typer.Option("--prune", help="In a cluster: objects that DIR does not hold go, in its namespaces."),
    ] = False,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
) -> None:
    """Show what applying DIR would change for requests, not only in YAML. Nothing is written.

    Both sides are compiled by the routers' own code: policies that appear, vanish or change, requests that
    another policy takes, shares, order, timeouts, and what nobody may expect. In a cluster, objects that DIR
    does not hold stay, as with `kubectl apply`; against a folder or a running `beamline up` DIR is the whole.
    Exit code 0: nothing changes, 1: something does, above 1: it could not be found out.
    """
    try:
        found = _diff(folder, _other(against, kubeconfig, context, state), namespace, prune=prune)
    except CliError as error:
        raise CliError(str(error), ExitCode.CONFIGURATION if error.code <= CHANGES else error.code) from error
    except Exception as error:
        complain(f"beamline: {type(error).__name__}: {error}")
        raise typer.Exit(_SOFTWARE) from error
    if output is Format.JSON:
        say(as_json(_document(found)))
    elif output is Format.YAML:
        say(as_yaml(_document(found)))
    elif output is Format.NAME:
        for one in found.objects:
            say(f"{one.key.kind.lower()}.beamline.io/{one.key.name}")
    else:
        _show(found, everything=output is Format.WIDE)
    raise typer.Exit(CHANGES if found else ExitCode.OK)


def _other(
    against: Path | None, kubeconfig: Path | None, context: str | None, state: Path | None
) -> Path | Place:
    """The side to compare with: a folder, a running `beamline up`, or a cluster."""
    if against is None:
        return find_place(kubeconfig, state, context)
    if (kubeconfig, context, state) != (None, None, None):
        raise CliError("--against excludes --kubeconfig, --context and --state", ExitCode.USAGE)
    return against


def _diff(folder: Path, other: Path | Place, namespace: str, *, prune: bool) -> RoutingDiff:
    from beamline_cli.routing.compare import compare
    from beamline_cli.routing.sources import live, read
    from beamline_cli.routing.table import table_of

    from .check import files_of

    whole = True
    before: Objects
    if isinstance(other, Path):
        before, _ = read(files_of([other]), namespace, {})
    elif other.running is not None:
        from beamline_cli.up.state import read_objects

        before = live(read_objects(other.running.state))
    else:
        from beamline_cli.kube import objects_of

        before, whole = live(objects_of(other, None, None)), False
    wanted, skipped = read(files_of([folder]), namespace, before)
    for one in skipped:
        complain(paint(f"{one} is not of Beamline: skipped", "dim", sys.stderr))
    if not wanted and not whole:
        raise CliError(f"{folder} holds no Extension or RoutingPolicy", ExitCode.USAGE)
    spaces = {key.namespace for key in wanted}
    kept = {
        key: stored for key, stored in before.items() if not whole and not (prune and key.namespace in spaces)
    }
    now = table_of(before)
    return compare(now, table_of({**kept, **wanted}, now))


def _show(found: RoutingDiff, *, everything: bool) -> None:
    from beamline_cli.routing.classes import fate_text

    if not found:
        say("Nothing changes.")
        return
    _section("Objects", [(one.change, f"{one.key} {one.change}", one.fields) for one in found.objects])
    _section(
        "Policies in the routers",
        [(one.change, f"{one.policy} {one.change}", one.details) for one in found.policies],
    )
    rows = [(f"{_who(row)}: {fate_text(row.before)} -> {fate_text(row.after)}") for row in found.requests]
    most = len(rows) if everything else _MOST
    _section("Requests that another policy takes", [("changes", row, ()) for row in rows[:most]])
    if len(rows) > most:
        say(f"  and {len(rows) - most} more: -o wide")
    if not found.whole:
        say("  (too many combinations: those that the changed policies name were looked at)")
    for title, listed, change in (
        ("New remarks", found.new, "appears"),
        ("Remarks that go", found.gone, "vanishes"),
    ):
        if listed:
            _section(title, [(change, f"{about}: {sentence}", ()) for about, sentence in listed])


def _section(title: str, entries: list[tuple[str, str, tuple[Change, ...]]]) -> None:
    """(change, text, what in it) of each entry, below a title."""
    say(paint(title, "bold"))
    for change, text, details in entries:
        sign = _SIGNS[change]
        say(f"  {paint(sign, _COLOURS[sign])} {text}")
        for detail in details:
            say(f"        {_change(detail)}")
    if not entries:
        say("  nothing changes")


def _who(row: Rerouted) -> str:
    parts = (
        ("tenant", row.tenant),
        ("environment", row.environment),
        ("model", row.model),
        ("headers", row.headers),
    )
    return ", ".join(f"{name} {value}" for name, value in parts if value != "any") or "every request"


def _change(change: Change) -> str:
    if change.before is None and change.after == "there":
        return f"{change.at} added"
    if change.before == "there" and change.after is None:
        return f"{change.at} removed"
    if (change.before, change.after) == ("here", "elsewhere"):
        return f"{change.at} moves"
    return f"{change.at}: {_value(change.before)} -> {_value(change.after)}"


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, list) and len(str(value)) > _WIDE:
        return f"{len(value)} entries"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_value(inner)}" for name, inner in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _document(found: RoutingDiff) -> dict[str, Any]:
    from beamline_cli.routing.classes import fate_text

    def changes(listed: tuple[Change, ...]) -> list[dict[str, Any]]:
        return [{"at": one.at, "from": one.before, "to": one.after} for one in listed]

    return {
        "changes": bool(found),
        "routing_changes": found.routing,
        "objects": [
            {**one.key._asdict(), "change": one.change, "fields": changes(one.fields)}
            for one in found.objects
        ],
        "policies": [
            {"policy": one.policy, "change": one.change, "details": changes(one.details)}
            for one in found.policies
        ],
        "requests": [
            {**asdict(row), "before": fate_text(row.before), "after": fate_text(row.after)}
            for row in found.requests
        ],
        "all_requests_looked_at": found.whole,
        "remarks": {
            "new": [{"object": about, "message": sentence} for about, sentence in found.new],
            "gone": [{"object": about, "message": sentence} for about, sentence in found.gone],
        },
    }
