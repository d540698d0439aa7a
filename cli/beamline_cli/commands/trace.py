"""``beamline trace``: where one request went, and how long each step of it took."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, paint, say, table
from beamline_cli.routers import Credentials, NatsUrl, Router, Timeout, ask

from .look import State

BAR: Final = 32
"""Characters of the waterfall."""
_COLOUR: Final = {"ok": "green", "error": "red", "rejected": "red", "skipped": "yellow", "shadow": "dim"}


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="trace")(trace)


def trace(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST_ID", help="As the answer said it: request_id or X-Request-Id.")
    ],
    *,
    router: Router = None,
    nats_url: NatsUrl = None,
    credentials: Credentials = None,
    state: State = None,
    timeout: Timeout = 2.0,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
) -> None:
    """Show which router served a request, which steps it took, why this provider, and what went wrong.

    Routers remember their last requests in memory, failed and slow ones longer. Never prompts or answers.
    Exit code 1 where no router knows the request (any more).
    """
    answers = ask(
        "trace",
        {"request_id": request_id},
        router=router,
        nats_url=nats_url,
        credentials=credentials,
        state=state,
        timeout=timeout,
    )
    found = [answer["result"] for answer in answers if isinstance(answer.get("result"), dict)]
    if not found:
        raise _unknown(request_id, answers)
    newest = max(found, key=lambda one: str(one.get("at", "")))
    if output is Format.JSON:
        say(as_json(newest))
    elif output is Format.YAML:
        say(as_yaml(newest))
    elif output is Format.NAME:
        say(str(newest["instance"]))
    else:
        for line in drawn(newest):
            say(line)


def drawn(trail: dict[str, Any]) -> list[str]:
    """The lines for people."""
    error = trail.get("error")
    end = paint("ok", "green") if error is None else paint(str(error["code"]), "red")
    facts = {
        "policy": trail.get("policy") or "none",
        "tenant": trail.get("tenant") or "unknown",
        "model": trail.get("model"),
        "trace": trail.get("trace_id"),
    }
    lines = [
        f"request {trail['request_id']}  {end}  {_ms(trail['latency_ms'])} ms",
        f"  at {trail['at']}, router {trail['instance']}, door {trail['door']}",
        "  " + ", ".join(f"{name} {value}" for name, value in facts.items() if value),
    ]
    if trail.get("provider"):
        why = f" ({trail['reason']})" if trail.get("reason") else ""
        lines.append(f"  answered by {trail['provider']}{why}")
    steps = trail.get("steps") or []
    if steps:
        whole = max(float(trail["latency_ms"]), *(float(one["start_ms"]) + float(one["ms"]) for one in steps))
        header = ("STEP", "EXTENSION", "START MS", "MS", "TRIES", "OUTCOME", "", "")
        rows = [_row(step, whole) for step in steps]
        lines += ["", *_coloured(table(header, rows), steps)]
    if error is not None:
        where = f" at step {error['step']}" if error.get("step") else ""
        who = f" ({error['extension']})" if error.get("extension") else ""
        said = f": {error['message']}" if error.get("message") else ""
        lines += ["", f"{paint('error', 'red')} {error['code']}{where}{who}{said}"]
    return lines


def _row(step: dict[str, Any], whole: float) -> tuple[str, ...]:
    notes = [str(step[name]) for name in ("reason", "why") if step.get(name)]
    if step.get("breaker") not in {None, "closed"}:
        notes.append(f"breaker {step['breaker']}")
    if step.get("parallel_group"):
        notes.append(f"group {step['parallel_group']}")
    name = str(step["extension"]) + (f" {step['version']}" if step.get("version") else "")
    return (
        str(step["name"]),
        name,
        _ms(step["start_ms"]),
        _ms(step["ms"]),
        str(step["attempts"]),
        str(step["outcome"]),
        bar(float(step["start_ms"]), float(step["ms"]), whole),
        ", ".join(notes),
    )


def bar(start_ms: float, ms: float, whole_ms: float) -> str:
    """Where a step lies within its request, as :data:`BAR` characters."""
    if whole_ms <= 0:
        return "|" + " " * BAR + "|"
    first = min(BAR - 1, int(start_ms / whole_ms * BAR))
    last = min(BAR, max(first + 1, round((start_ms + ms) / whole_ms * BAR)))
    return "|" + (" " * first + "=" * (last - first)).ljust(BAR) + "|"


def _coloured(lines: list[str], steps: list[dict[str, Any]]) -> list[str]:
    head, *rest = lines
    return [head, *(paint(line, _COLOUR.get(str(step["outcome"])), sys.stdout) if step["outcome"] != "ok"
                    else line for line, step in zip(rest, steps, strict=True))]  # fmt: skip


def _unknown(request_id: str, answers: list[dict[str, Any]]) -> CliError:
    errors = [answer.get("error") or {} for answer in answers]
    other = [error for error in errors if error.get("code") != "NOT_FOUND"]
    if other:
        return CliError(f"{other[0].get('code')}: {other[0].get('message')}", ExitCode.FAILURE)
    asked = f"{len(answers)} router" + ("s" if len(answers) != 1 else "")
    return CliError(
        f"no router knows the request {request_id} ({asked} asked): either there was none with that id, or "
        "it has been pushed out by newer ones (BEAMLINE_TRAILS of a router says how many it keeps), or its "
        "router has ended. The routers' logs have a line for each request."
    )


def _ms(value: Any) -> str:
    return f"{float(value):.1f}"
