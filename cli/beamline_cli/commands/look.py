"""``beamline status`` and ``beamline get``: what runs, and how the objects are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, paint, say, show_objects, table
from beamline_cli.place import Context, Kubeconfig, Namespace, find_place
from beamline_cli.routers import Credentials, NatsUrl, Router, Timeout, ask, results

if TYPE_CHECKING:
    from beamline_cli.up.state import RunningUp

KINDS: Final = {
    **dict.fromkeys(("ext", "extension", "extensions"), "Extension"),
    **dict.fromkeys(("rp", "routingpolicy", "routingpolicies"), "RoutingPolicy"),
    "all": "",
}
State = Annotated[
    Path | None,
    typer.Option(envvar="BEAMLINE_STATE", help="State folder of the `beamline up` that is meant."),
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="status")(status)
    app.command(name="get")(get)


def status(
    *,
    state: State = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask running routers: revision, breakers, limits, keys in use.")
    ] = False,
    router: Router = None,
    nats_url: NatsUrl = None,
    credentials: Credentials = None,
    timeout: Timeout = 2.0,
    output: Output = Format.TABLE,
) -> None:
    """Show what runs, and what is wrong with the files; with --live what the routers say."""
    if live:
        answers = ask(
            "status",
            {},
            nats_url=nats_url,
            credentials=credentials,
            state=state,
            router=router,
            timeout=timeout,
        )
        _show_routers(results(answers), output)
        return
    from beamline_cli.up.state import find_running, read_faults

    running = find_running(state)
    faults = read_faults(running.state)
    document = {"run": running.to_json(), "faults": faults, "objects": _local(running)}
    if output is Format.JSON:
        say(as_json(document))
        return
    if output is Format.YAML:
        say(as_yaml(document))
        return
    if output is Format.NAME:
        say(str(running.state))
        return
    rows = [
        ("manifests", running.folder),
        ("router", running.url),
        ("nats", running.nats_url),
        ("postgresql", running.database_url),
        ("state", str(running.state)),
        ("process", str(running.pid)),
    ]
    for line in table(("WHAT", "WHERE"), rows):
        say(line)
    say()
    _show(_local(running), output)
    for fault in faults:
        say(
            paint(
                f"{fault['file']}:{fault['line']}: {fault['field']}: {fault['message']}".replace(": :", ":"),
                "red",
            )
        )


def get(
    kind: Annotated[str, typer.Argument(metavar="[KIND]", help="ext, rp or all.")] = "all",
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One object.")] = None,
    *,
    namespace: Namespace = None,
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Show Extensions and RoutingPolicies with their status."""
    wanted = KINDS.get(kind.lower())
    if wanted is None:
        raise CliError(f"there is no kind {kind!r}: it is ext, rp or all", ExitCode.USAGE)
    place = find_place(kubeconfig, state, context)
    if place.running is None:
        from beamline_cli.kube import objects_of

        objects = objects_of(place, wanted or None, namespace)
    else:
        objects = _local(place.running)
    chosen = [
        item
        for item in objects
        if (not wanted or item["kind"] == wanted)
        and (name is None or item["metadata"]["name"] == name)
        and (namespace is None or item["metadata"].get("namespace") == namespace)
    ]
    if name is not None and not chosen:
        raise CliError(f"{wanted or 'object'} {name!r} does not exist", ExitCode.FAILURE)
    if not chosen and output in {Format.TABLE, Format.WIDE}:
        say("No objects.")
        return
    _show(chosen, output)


def _show_routers(found: Sequence[tuple[str, Mapping[str, Any]]], output: Format) -> None:
    document = [{"router": instance, **said} for instance, said in found]
    if output is Format.JSON:
        say(as_json(document))
        return
    if output is Format.YAML:
        say(as_yaml(document))
        return
    if output is Format.NAME:
        for instance, _ in found:
            say(instance)
        return
    rows = [
        (
            instance,
            str(said["status"]),
            str(said["revision"]),
            f"{said['age_seconds']:g} s",
            f"{said['limits']['in_flight']}/{said['limits']['max_in_flight']}",
            f"{said['limits']['overload_share']:.0%}",
            str(said["keys_total"]),
        )
        for instance, said in found
    ]
    for line in table(("ROUTER", "STATUS", "REVISION", "AGE", "IN FLIGHT", "SHED", "KEYS"), rows):
        say(line)
    breakers = [
        (instance, key, word)
        for instance, said in found
        for key, word in sorted(said["breakers"].items())
        if word != "closed" or output is Format.WIDE
    ]
    if breakers:
        say()
        for line in table(("ROUTER", "BREAKER", "STATE"), breakers):
            say(line)
    for instance, said in found:
        for fault in said["refused"]:
            say(paint(f"{instance}: {fault['id']}: {fault['field']}: {fault['reason']}", "red"))
        for notice in said["notices"]:
            say(paint(f"{instance}: {notice['id']}: {notice['reason']}: {notice['message']}", "yellow"))


def _show(objects: Sequence[Mapping[str, Any]], output: Format) -> None:
    lines: list[str] = []
    for kind in ("Extension", "RoutingPolicy"):
        rows = [_row(item, output is Format.WIDE) for item in objects if item["kind"] == kind]
        if rows:
            lines += ["", *table(_header(kind, output is Format.WIDE), rows)]
    show_objects(objects, output, lines[1:])


def _header(kind: str, wide: bool) -> tuple[str, ...]:
    first = ("EXTENSION", "TYPE") if kind == "Extension" else ("POLICY", "PRIORITY")
    last = ("REPLICAS",) if kind == "Extension" else ("PROVIDERS",)
    return (*first, "READY", "REASON", "PROGRAMMED", *last, "GENERATION", *(("MESSAGE",) if wide else ()))


def _row(item: Mapping[str, Any], wide: bool) -> tuple[str, ...]:
    spec, state = item["spec"], item.get("status") or {}
    ready = condition(item, "Ready")
    namespace = item["metadata"].get("namespace", "default")
    name = item["metadata"]["name"]
    extension = item["kind"] == "Extension"
    replicas = f"{state['readyReplicas']}/{state.get('replicas', 0)}" if "readyReplicas" in state else "-"
    return (
        name if namespace == "default" else f"{namespace}/{name}",
        str(spec.get("type", "?") if extension else spec.get("priority", 0)),
        str(ready.get("status", "Unknown")),
        str(ready.get("reason", "-")),
        str(state.get("programmed", "-")),
        replicas if extension else str(state.get("providers", "-")),
        str(item["metadata"].get("generation", "-")),
        *((str(ready.get("message", "")),) if wide else ()),
    )


def condition(item: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition of an object; empty where it has none of that type."""
    conditions: Sequence[Mapping[str, Any]] = (item.get("status") or {}).get("conditions") or ()
    return next((entry for entry in conditions if entry.get("type") == kind), {})


def _local(running: RunningUp) -> list[dict[str, Any]]:
    from beamline_cli.up.state import read_objects

    return read_objects(running.state)
