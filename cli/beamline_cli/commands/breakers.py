"""``beamline isolate`` and ``beamline reset``: the breakers of an extension, in all routers or in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from beamline_cli.output import Format, as_json, as_yaml, complain, say, table
from beamline_cli.routers import Credentials, NatsUrl, Router, Timeout, ask, note, results

from .look import State

if TYPE_CHECKING:
    from beamline_contract.acts import ActVerb

Extension = Annotated[str, typer.Argument(metavar="EXTENSION", help="Name or id of the Extension.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="isolate")(isolate)
    app.command(name="reset")(reset)


def isolate(
    extension: Extension,
    *,
    router: Router = None,
    nats_url: NatsUrl = None,
    credentials: Credentials = None,
    state: State = None,
    timeout: Timeout = 2.0,
    output: Output = Format.TABLE,
) -> None:
    """Refuse every call to an extension, in all running routers, until `beamline reset`.

    Its steps then fail at once: failureMode and fallback decide what a request gets. It survives changes of
    the registry, but not a restart of the router; to take an extension out for good set `enabled: false`.
    The audit log is told first; where no operator leads it is done all the same, with a warning.
    """
    _change(
        "isolate",
        extension,
        router,
        output,
        nats_url=nats_url,
        credentials=credentials,
        state=state,
        timeout=timeout,
    )


def reset(
    extension: Extension,
    *,
    router: Router = None,
    nats_url: NatsUrl = None,
    credentials: Credentials = None,
    state: State = None,
    timeout: Timeout = 2.0,
    output: Output = Format.TABLE,
) -> None:
    """Close the breakers of an extension at once, in all running routers; ends `beamline isolate` too."""
    _change(
        "reset",
        extension,
        router,
        output,
        nats_url=nats_url,
        credentials=credentials,
        state=state,
        timeout=timeout,
    )


def _change(verb: ActVerb, extension: str, router: str | None, output: Format, **where: Any) -> None:
    noted = note(verb, extension, router=router, **where)
    found = results(ask(verb, {"extension": extension}, router=router, **where))
    if noted is not None:
        complain(f"warning: this is not in the audit log: {noted}")
    document = [{"router": instance, **result} for instance, result in found]
    if output is Format.JSON:
        say(as_json(document))
    elif output is Format.YAML:
        say(as_yaml(document))
    elif output is Format.NAME:
        for instance, _ in found:
            say(instance)
    else:
        rows = [
            (instance, key, state) for instance, result in found for key, state in result["breakers"].items()
        ]
        for line in table(("ROUTER", "BREAKER", "STATE"), rows):
            say(line)
