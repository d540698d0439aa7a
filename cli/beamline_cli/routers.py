"""Asking all running routers something over NATS, and gathering what they answer.

Nobody knows how many routers there are, so answers are taken until none has come for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .faults import CliError, ExitCode

if TYPE_CHECKING:
    from beamline_contract.acts import ActVerb, RouterAct
    from beamline_sdk.link import LinkSettings

NOTE_S: Final = 6.0
"""How long the operator may take to note an act: a registry that does not answer says so within 5 s."""
QUIET_S: Final = 0.4
"""After an answer, how long the next one may take before they are all there."""

NatsUrl = Annotated[
    str | None,
    typer.Option(
        envvar=["BEAMLINE_NATS_URL", "NATS_URL"],
        help="NATS of the routers; default: that of the running `beamline up`.",
    ),
]
Credentials = Annotated[
    Path | None,
    typer.Option(
        "--nats-credentials",
        envvar=["BEAMLINE_NATS_CREDENTIALS_FILE", "NATS_CREDENTIALS_FILE"],
        help="Credentials file for NATS.",
    ),
]
Router = Annotated[
    str | None, typer.Option(metavar="INSTANCE", help="Only this router; default: all of them.")
]
Timeout = Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds to wait for the first answer.")]


def ask(
    verb: str,
    request: dict[str, Any],
    *,
    nats_url: str | None,
    credentials: Path | None,
    state: Path | None,
    router: str | None,
    timeout: float,
) -> list[dict[str, Any]]:
    """The answers, sorted by router. Raises :class:`CliError` where nobody answers."""
    if router is not None:
        request = {**request, "instance": router}
    import asyncio

    from beamline_sdk.link import LinkError

    settings = _link(nats_url, credentials, state)
    try:
        answers = [answer for answer, _ in asyncio.run(gather(settings, verb, request, timeout))]
    except (LinkError, OSError) as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    if not answers:
        whom = "no router" if router is None else f"no router with the id {router}"
        raise CliError(f"{whom} answered within {timeout:g} s on {settings.shown}", ExitCode.UNAVAILABLE)
    return sorted(answers, key=lambda answer: str(answer.get("instance")))


def note(
    verb: ActVerb,
    extension: str,
    *,
    nats_url: str | None,
    credentials: Path | None,
    state: Path | None,
    router: str | None,
    timeout: float,
) -> str | None:
    """Has the operator's leader note in the audit log what is about to be done to routers. None where it did,
    or where there is no router to do it to; else why not: who has these rights on NATS may act without it.
    """
    import asyncio
    import getpass
    import os
    from uuid import uuid4

    from beamline_contract.acts import RouterAct, breakers_of
    from beamline_contract.names import object_id
    from beamline_sdk.link import LinkError

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = f"user {os.getuid()}"
    settings, extension_id = _link(nats_url, credentials, state), object_id(extension)

    async def told() -> str | None:
        request = {} if router is None else {"instance": router}
        answers = [answer for answer, _ in await gather(settings, "status", request, timeout)]
        before = breakers_of(answers, extension_id)
        if not before:
            return None
        return await _told(
            settings,
            RouterAct(
                verb=verb,
                extension_id=extension_id,
                instance=router,
                before=before,
                changed_by=f"{user} (beamline {verb})",
                request_id=uuid4().hex,
            ),
        )

    try:
        return asyncio.run(told())
    except (LinkError, OSError, ValueError) as error:
        return str(error)


async def _told(settings: LinkSettings, act: RouterAct) -> str | None:
    from nats import errors

    from beamline_contract.acts import ActNoted
    from beamline_contract.names import SUBJECT_OPERATOR_ACT
    from beamline_sdk import link

    nc = await link.connect(settings, timeout_s=NOTE_S)
    try:
        reply = await nc.request(SUBJECT_OPERATOR_ACT, act.model_dump_json().encode(), timeout=NOTE_S)
        noted = ActNoted.model_validate_json(reply.data)
    except (errors.NoRespondersError, errors.TimeoutError, TimeoutError):
        return "no operator leads"
    finally:
        await link.close(nc, grace_s=1.0)
    return None if noted.error is None else noted.message


def _link(nats_url: str | None, credentials: Path | None, state: Path | None) -> LinkSettings:
    if nats_url is None:
        from .up.state import find_running

        nats_url = find_running(state).nats_url
    from beamline_sdk import logs
    from beamline_sdk.link import LinkSettings

    logs.configure("cli", level="error", silent=True)
    return LinkSettings(nats_url, "beamline cli", None if credentials is None else str(credentials))


def results(answers: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(router, result) of each. Raises :class:`CliError` with the first error where a router refused."""
    for answer in answers:
        if "error" in answer:
            error = answer["error"]
            code = ExitCode.UNAVAILABLE if error.get("code") == "UNAVAILABLE" else ExitCode.FAILURE
            raise CliError(f"{answer.get('instance')}: {error.get('code')}: {error.get('message')}", code)
    return [(str(answer.get("instance")), answer["result"]) for answer in answers]


async def gather(
    settings: LinkSettings,
    verb: str,
    request: dict[str, Any],
    patience: float,
    *,
    stamp: Callable[[], float] = time.time,
) -> list[tuple[dict[str, Any], float]]:
    """What routers answer, each with ``stamp()`` as it arrives. Raises ``LinkError`` and :class:`OSError`."""
    import orjson

    from beamline_contract.names import SUBJECT_ROUTER_ADMIN
    from beamline_sdk import link

    nc = await link.connect(settings, timeout_s=patience)
    try:
        inbox = nc.new_inbox()
        subscription = await nc.subscribe(inbox)
        await nc.publish(f"{SUBJECT_ROUTER_ADMIN}.{verb}", orjson.dumps(request), reply=inbox)
        answers: list[tuple[dict[str, Any], float]] = []
        wait = patience
        while True:
            try:
                message = await subscription.next_msg(wait)
            except TimeoutError:
                return answers
            if message.headers and message.headers.get("Status") == "503":
                return answers
            found = orjson.loads(message.data)
            if isinstance(found, dict):
                answers.append((found, stamp()))
            if "instance" in request:
                return answers
            wait = QUIET_S
    finally:
        await link.close(nc, grace_s=1.0)
