"""``beamline check``, also called ``beamline doctor``: what is wrong with an installation, and what helps."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, paint, say
from beamline_cli.place import Context, Kubeconfig, Place, cluster_is_named, find_place
from beamline_cli.routers import Credentials

from .look import State

if TYPE_CHECKING:
    from beamline_cli.doctor.checks import Check
    from beamline_cli.doctor.patient import Finding


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="check")(check)
    app.command(name="doctor", help="The same as `check`.")(check)


def check(
    *,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: Annotated[bool, typer.Option(help="Use the ServiceAccount of this pod.")] = False,
    state: State = None,
    database_url: Annotated[
        str | None, typer.Option(envvar="BEAMLINE_DATABASE_URL", help="postgresql://user@host:port/database")
    ] = None,
    nats_url: Annotated[
        str | None, typer.Option(envvar=["BEAMLINE_NATS_URL", "NATS_URL"], help="nats://host:port")
    ] = None,
    credentials: Credentials = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Only these namespaces; may be repeated.")
    ] = None,
    install_namespace: Annotated[
        str | None,
        typer.Option(metavar="NAMESPACE", help="Where Beamline itself runs; default: looked for in all."),
    ] = None,
    release_finalizers: Annotated[
        bool, typer.Option(help="Let go of objects that hang in their deletion, without an operator.")
    ] = False,
    every_object: Annotated[
        bool, typer.Option(help="With --release-finalizers: of every object, as before an uninstallation.")
    ] = False,
    stop_operator: Annotated[
        str | None, typer.Option(metavar="NAMESPACE/NAME", help="Scale this Deployment to zero first.")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
) -> None:
    """Look at an installation: cluster, rights, components, database, NATS, routers, objects.

    Looks at a cluster, or at a running `beamline up`; database and NATS where they are named, as they are in
    the operator's pod. What nobody named, or these credentials may not see, is skipped, and says so.
    Exit code 0 where nothing failed (warnings and skipped checks do not fail), 1 where a check failed, 69
    where there is nothing to look at.
    """
    import asyncio

    if (every_object or stop_operator) and not release_finalizers:
        raise CliError("--every-object and --stop-operator go with --release-finalizers", ExitCode.USAGE)
    spaces = tuple(namespace or ())
    if release_finalizers:
        if kubeconfig is None and not in_cluster and not cluster_is_named():
            raise CliError("which cluster? give --kubeconfig FILE or --in-cluster", ExitCode.USAGE)
        if stop_operator is not None and "/" not in stop_operator:
            raise CliError("--stop-operator must be NAMESPACE/NAME", ExitCode.USAGE)
        place = Place(None, kubeconfig, context)
        released = asyncio.run(_release(place, spaces, every_object, stop_operator))
        for name in released:
            say(f"released {name}")
        say(f"{len(released)} objects released; an operator's next full compare removes rows left behind.")
        return
    where = _where(kubeconfig, context, in_cluster, state, database_url or nats_url)
    asked = _Asked(database_url, nats_url, credentials, spaces, install_namespace)
    _report(asyncio.run(_examine(where, asked)), output)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line says of it."""

    database_url: str | None
    nats_url: str | None
    credentials: Path | None
    namespaces: tuple[str, ...]
    installed_in: str | None


def _where(
    kubeconfig: Path | None, context: str | None, in_cluster: bool, state: Path | None, named: str | None
) -> Place | None:
    """What to look at; None where only a database or NATS is named."""
    if in_cluster:
        return Place(None)
    try:
        return find_place(kubeconfig, state, context)
    except CliError as error:
        if named and kubeconfig is None and state is None and error.code is ExitCode.UNAVAILABLE:
            return None
        raise


def _report(found: list[tuple[Check, Finding]], output: Format) -> None:
    if output in {Format.JSON, Format.YAML}:
        listed = [
            {
                "group": one.group,
                "check": one.name,
                "verdict": finding.verdict.value,
                "message": finding.message,
                "help": finding.help,
            }
            for one, finding in found
        ]
        say(as_json(listed) if output is Format.JSON else as_yaml(listed))
    elif output is Format.NAME:
        for one, finding in found:
            if finding.verdict.value == "failed":
                say(one.name)
    else:
        _table(found, everything=output is Format.WIDE)
    failed = [one.name for one, finding in found if finding.verdict.value == "failed"]
    if failed:
        raise CliError(f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}")


def _table(found: list[tuple[Check, Finding]], *, everything: bool) -> None:
    """Groups with a line per check; one that was skipped as a whole for one reason is one line."""
    width = max(len(one.name) for one, _ in found)
    counts: dict[str, int] = {}
    for group, members in groupby(found, key=lambda entry: entry[0].group):
        entries = list(members)
        for _, finding in entries:
            counts[finding.verdict.value] = counts.get(finding.verdict.value, 0) + 1
        say(paint(group, "bold"))
        reasons = {finding.message for _, finding in entries}
        if len(reasons) == 1 and entries[0][1].verdict.value == "skipped" and not everything:
            one = entries[0][1]
            say(f"  {_sign('skipped')} {len(entries)} checks skipped: {one.message}{_helped(one)}")
            continue
        for check_, finding in entries:
            name = check_.name.ljust(width)
            say(f"  {_sign(finding.verdict.value)} {name}  {finding.message}{_helped(finding)}")
    say(
        ", ".join(
            f"{counts[word]} {word}" for word in ("ok", "warning", "failed", "skipped") if word in counts
        )
    )


_SIGNS: Final = {
    "ok": ("\N{CHECK MARK}", "green", "+"),
    "warning": ("!", "yellow", "!"),
    "failed": ("\N{BALLOT X}", "red", "x"),
    "skipped": ("-", "dim", "-"),
}


def _sign(verdict: str) -> str:
    """A tick or a cross; letters where the terminal's encoding has neither."""
    sign, colour, plain = _SIGNS[verdict]
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        sign = plain
    return paint(sign, colour)


def _helped(finding: Finding) -> str:
    return f": {finding.help}" if finding.help and finding.verdict.value != "ok" else ""


async def _examine(where: Place | None, asked: _Asked) -> list[tuple[Check, Finding]]:
    from beamline_cli.doctor.checks import examine
    from beamline_cli.doctor.patient import Patient
    from beamline_sdk import logs
    from beamline_sdk.link import LinkSettings

    logs.configure("cli", level="error", silent=True)
    running = where.running if where is not None else None
    api = await where.connect() if where is not None and running is None else None
    nats_url = asked.nats_url or (running.nats_url if running is not None else None)
    credentials = None if asked.credentials is None else str(asked.credentials)
    local = _as_operator(running.database_url) if running is not None else None
    patient = Patient(
        api=api,
        database_url=asked.database_url or local,
        nats=None if nats_url is None else LinkSettings(nats_url, "beamline check", credentials),
        namespaces=asked.namespaces,
        running=running,
        installed_in=asked.installed_in,
    )
    try:
        return await examine(patient)
    finally:
        if api is not None:
            await api.close()


def _as_operator(url: str) -> str:
    """The database of ``beamline up`` as its own core logs in, not as the superuser that made it."""
    from beamline_cli.local.postgres import SUPERUSER

    return url.replace(f"//{SUPERUSER}@", "//beamline_operator@", 1)


async def _release(
    place: Place, namespaces: tuple[str, ...], everything: bool, operator: str | None
) -> list[str]:
    from beamline_cli.doctor.finalizers import forget_lease, release, release_for_good, stop_operator
    from beamline_sdk.deployment.kube_api import KubeError

    api = await place.connect()
    try:
        try:
            if operator is not None:
                await stop_operator(api, operator)
            if everything:
                released = await release_for_good(api, namespaces)
                if operator is not None:
                    await forget_lease(api, operator)
                return released
            return await release(api, namespaces, everything=False)
        finally:
            await api.close()
    except KubeError as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    except TimeoutError as error:
        raise CliError(str(error)) from error
