"""``beamline explain``: which way a request would take, without running anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, complain, paint, say, table
from beamline_cli.routers import Credentials, NatsUrl, Router, Timeout, ask, results

from .look import State

if TYPE_CHECKING:
    from beamline_contract.objects import BeamlineObject


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="explain")(explain)


def explain(
    request: Annotated[
        str, typer.Argument(help="A prompt, or a request as JSON, or @FILE with one, or - for stdin.")
    ] = "hello",
    *,
    policies: Annotated[Path, typer.Option(metavar="DIR", help="Folder with the manifests.")] = Path(),
    tenant: Annotated[str | None, typer.Option(help="tenant_id of the request.")] = None,
    environment: Annotated[str | None, typer.Option(help="Environment of the request.")] = None,
    model: Annotated[str | None, typer.Option(help="Model that is asked for.")] = None,
    policy: Annotated[str | None, typer.Option(help="RoutingPolicy that the request names.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="A header; repeatable.")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask running routers, with what they know of breakers and load.")
    ] = False,
    router: Router = None,
    nats_url: NatsUrl = None,
    credentials: Credentials = None,
    state: State = None,
    timeout: Timeout = 2.0,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
) -> None:
    """Show which way a request would take, and why.

    Offline from the manifests, or with --live from what running routers serve.
    The decision is made by the code that the router runs. Nothing is called.
    """
    from beamline_contract.errors import WireError
    from beamline_router.core.api_keys import without_keys
    from beamline_router.core.envelope import open_envelope
    from beamline_router.core.explain import explain as explained
    from beamline_router.core.intake import read_request

    document = _document(request)
    stated = {"tenant_id": tenant, "environment": environment, "model": model, "policy": policy}
    document.update((name, value) for name, value in stated.items() if value is not None)
    import orjson

    headers = _headers(header or [])
    if live:
        answers = ask(
            "explain",
            {"request": document, "headers": headers},
            nats_url=nats_url,
            credentials=credentials,
            state=state,
            router=router,
            timeout=timeout,
        )
        _show_live(results(answers), output)
        return
    headers = without_keys(headers)
    envelope = open_envelope(headers, lambda _: 1)
    wanted = read_request(orjson.dumps(document), headers, envelope, now=0.0, unix_ms=0.0)
    if isinstance(wanted, WireError):
        raise CliError(f"{wanted.code}: {wanted.message}")
    snapshot, conflicted = _snapshot(policies)
    answer = {**explained(wanted, snapshot), "conflicted": conflicted}
    _print(answer, answer, output)
    if answer["policy"] is None:
        raise CliError("NOT_FOUND: no policy takes this request")


def _print(document: Any, answer: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        say(as_json(document))
    elif output is Format.YAML:
        say(as_yaml(document))
    elif output is Format.NAME:
        say(answer["policy"]["id"] if answer["policy"] else "")
    else:
        _show(answer)


def _show_live(found: list[tuple[str, dict[str, Any]]], output: Format) -> None:
    """What each router says; for people once for those that say the same, but for what only they know."""
    if output in {Format.JSON, Format.YAML}:
        document = [{"router": instance, **answer} for instance, answer in found]
        _print(document, found[0][1], output)
    else:
        for number, (instance, answer) in enumerate(found):
            if output is not Format.NAME:
                say(("\n" if number else "") + f"router {instance}, revision {answer['revision']}")
            _print(answer, answer, output)
    without = [instance for instance, answer in found if answer["policy"] is None]
    if without:
        raise CliError(f"NOT_FOUND: no policy takes this request ({', '.join(without)})")


def _document(request: str) -> dict[str, Any]:
    import orjson

    text = request
    if request == "-":
        text = sys.stdin.read()
    elif request.startswith("@"):
        try:
            text = Path(request[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"{request[1:]} can't be read: {error}", ExitCode.USAGE) from error
    if not text.lstrip().startswith("{"):
        return {"prompt": text}
    try:
        document: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise CliError(f"the request is not valid JSON: {error}", ExitCode.USAGE) from error
    return document


def _headers(stated: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for one in stated:
        name, colon, value = one.partition(":")
        if not colon or not name.strip():
            raise CliError(f"--header {one!r} is not NAME:VALUE", ExitCode.USAGE)
        headers[name.strip().lower()] = value.strip()
    return headers


def _snapshot(folder: Path) -> tuple[Any, list[dict[str, str]]]:
    """The manifests of a folder, compiled as a router would, and the objects that the operator keeps from it
    because another one holds their id or subject.
    """
    from dataclasses import replace

    from beamline_contract.names import object_id
    from beamline_contract.objects import Extension
    from beamline_contract.projection import extension_record, policy_record
    from beamline_contract.references import permission_fault, references_of, rivals
    from beamline_router.core.snapshot import compile_snapshot

    def denied(one: BeamlineObject) -> set[str]:
        found = references_of(one, known)
        return {object_id(each.ref.name) for each in found if permission_fault(one.key.namespace, each)}

    objects = _objects(folder)
    known = {one.key: one for one in objects}
    lost = rivals(known)
    conflicted = [
        {
            "object": str(key),
            "reason": "Conflicted",
            "message": f"the {rival.claim} {rival.value} belongs to {rival.key}",
            "other": str(rival.key),
        }
        for key, rival in lost.items()
    ]
    for one in conflicted:
        complain(paint(f"{one['object']}: {one['reason']}: {one['message']}", "red", sys.stderr))
    objects = [one for one in objects if one.key not in lost]
    records = [extension_record(one, denied(one)) for one in objects if isinstance(one, Extension)]
    routes = [policy_record(one, denied(one)) for one in objects if not isinstance(one, Extension)]
    done = compile_snapshot(
        [replace(record, uid=record.id) for record in records],
        [replace(record, uid=record.id) for record in routes],
        revision=1,
        previous=None,
    )
    for refused in done.refused:
        complain(paint(f"{refused.kind} {refused.id}: {refused.field}: {refused.reason}", "red", sys.stderr))
    for notice in done.notices:
        complain(paint(f"{notice.kind} {notice.id}: {notice.reason}: {notice.message}", "yellow", sys.stderr))
    return done.snapshot, conflicted


def _objects(folder: Path) -> list[BeamlineObject]:
    from .check import checked, files_of

    faults, objects = checked(files_of([folder]))
    for fault in faults:
        complain(paint(str(fault), "red", sys.stderr))
    if faults:
        raise CliError(f"{folder} holds faults: `beamline validate {folder}` lists them")
    if not objects:
        raise CliError(f"{folder} holds no Extension or RoutingPolicy: give --policies DIR", ExitCode.USAGE)
    return objects


def _show(answer: dict[str, Any]) -> None:
    policy = answer["policy"]
    if policy is not None:
        say(
            f"policy {policy['id']}: {policy['because']}; deadline {answer['deadline_ms']} ms, "
            f"complexity {policy['complexity']}"
        )
        for hint in policy["hints"]:
            say(f"hint: {hint}")
        for remark in policy.get("remarks", ()):  # a router of an earlier version has none
            say(f"remark: {_remark(remark)}")
        rows: list[tuple[str, ...]] = []
        for step in answer["steps"]:
            if step["action"] == "select_provider":
                rows += _provider_rows(step)
            else:
                beside = ", beside the provider" if step.get("overlap") else ""
                rows += _rows(step, step, f"on failure {step['failure_mode']}{beside}")
        say()
        for line in table(("STEP", "ACTION", "EXTENSION", "TIMEOUT", "RETRY", "SET BY", "NOTE"), rows):
            say(line)
    if answer["others"]:
        say()
        for line in table(
            ("OTHER POLICY", "WHY NOT"), [(one["policy"], _why_not(one)) for one in answer["others"]]
        ):
            say(line)


def _why_not(other: dict[str, Any]) -> str:
    return "; ".join([other["because"], *map(_remark, other.get("remarks", ()))])


def _remark(remark: dict[str, Any]) -> str:
    return f"{remark['reason']}: {remark['message']}"


def _provider_rows(step: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    if (canary := step.get("canary")) is not None:
        asked = "asked first" if canary["asked"] else "not asked"
        rows += _rows(step, canary, f"canary, {canary['percent']} %: {asked} for {canary['key']}")
    several = len(step["providers"]) > 1
    for call in step["providers"]:
        share = "" if call["share"] is None else f", {call['share']:.0%} of the requests"
        if call.get("score") is not None:
            share = f", score {call['score']['total']:.3f}"
        first = ", first for this request" if several and step["first"] == call["extension_id"] else ""
        rows += _rows(step, call, f"{step['strategy']}, weight {call['weight']}{share}{first}")
    for call in step["fallback"]:
        rows += _rows(step, call, "fallback")
    return rows


def _rows(step: dict[str, Any], call: dict[str, Any], note: str) -> list[tuple[str, ...]]:
    """One row for an extension, and one for each version of it."""
    if "versions" not in call:
        return [_row(step, call, note)]
    chosen = call.get("version")
    return [
        _row(
            step,
            version,
            f"{note}; version {version['version']}, {version['share']:.0%}"
            + (", met by this request" if version["version"] == chosen else ""),
        )
        for version in call["versions"]
    ]


def _row(step: dict[str, Any], call: dict[str, Any], note: str) -> tuple[str, ...]:
    if "absent" in call:
        return (
            step["step"],
            step["action"],
            call["extension_id"],
            "-",
            "-",
            "-",
            f"absent: {call['absent']}",
        )
    by_step = [name for name, origin in call["from"].items() if origin == "step"]
    return (
        step["step"],
        step["action"],
        call["extension_id"],
        f"{call['timeout_ms']} ms",
        str(call["retry"]),
        f"step ({', '.join(by_step)})" if by_step else "extension",
        note + _live(call.get("live")),
    )


def _live(known: dict[str, Any] | None) -> str:
    if known is None:
        return ""
    words = f"; breaker {known['breaker']}"
    if not known["available"]:
        reopens = known["reopens_in_ms"]
        words += ", refuses calls" if reopens is None else f", refuses calls for {reopens / 1000:.1f} s"
    if known["latency_ms"] is not None:
        words += f"; {known['latency_ms']:.0f} ms, {known['in_flight']} in flight"
    return words
