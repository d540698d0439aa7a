"""``beamline logs``: what an extension or a component wrote, in a cluster or on this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import complain, paint
from beamline_cli.place import Context, Kubeconfig, Namespace, Place, find_place

from .look import State

if TYPE_CHECKING:
    from beamline_cli.up.state import RunningUp

_LOOK_S: Final = 0.2
_PREFIXES: Final = ("ext/", "extension/", "extensions/")


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="logs")(logs)


def logs(
    target: Annotated[
        str,
        typer.Argument(
            help="operator, router, admin, or the name of an Extension (ext/NAME where it is called like "
            "one of these); of `beamline up` also nats and postgresql."
        ),
    ],
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Only what is younger: 90s, 10m, 1h30m, 2d.")
    ] = None,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Only the last lines, of each pod or process.")
    ] = None,
    namespace: Namespace = None,
    container: Annotated[
        str | None,
        typer.Option("--container", "-c", help="Container of the pod, such as wait-for-migration."),
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the container that ended before.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state: State = None,
) -> None:
    """Show the logs of an extension or of a component.

    Lines are shown as they were written; where there are several pods or processes, each begins with the
    name of its own.
    """
    from beamline_cli.log_lines import span

    try:
        younger = None if since is None else span(since)
    except ValueError as error:
        raise CliError(f"--since: {error}", ExitCode.USAGE) from error
    extension = target.startswith(_PREFIXES)
    asked = _Asked(
        target.partition("/")[2] if extension else target, extension, namespace, younger, tail, follow
    )
    place = find_place(kubeconfig, state, context)
    if place.running is None:
        _of_pods(place, asked, container, previous)
        return
    if container is not None or previous:
        raise CliError("--container and --previous are for pods of a cluster", ExitCode.USAGE)
    _of_files(place.running, asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line says."""

    target: str
    extension: bool
    namespace: str | None
    since: timedelta | None
    tail: int | None
    follow: bool


class _Printer:
    """Lines on stdout, with the name of their source where there are several."""

    def __init__(self, *, named: bool) -> None:
        self.named = named

    def __call__(self, source: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r\n")
        sys.stdout.write(f"{paint(f'[{source}]', 'dim')} {text}\n" if self.named else f"{text}\n")
        sys.stdout.flush()


def _of_pods(place: Place, asked: _Asked, container: str | None, previous: bool) -> None:
    import asyncio

    from beamline_cli import log_pods
    from beamline_cli.doctor.patient import COMPONENTS
    from beamline_cli.kube import with_cluster
    from beamline_sdk.deployment.kube_api import KubeApi

    wanted = log_pods.Wanted(
        target=asked.target,
        extension=asked.extension or asked.target not in COMPONENTS,
        namespace=asked.namespace,
        container=container,
        previous=previous,
        since_s=None if asked.since is None else int(asked.since.total_seconds()),
        tail=asked.tail,
    )

    async def show(api: KubeApi) -> None:
        pods = await log_pods.pods_of(api, wanted)
        printer = _Printer(named=asked.follow or len(pods) > 1)
        if asked.follow:
            await log_pods.follow(api, wanted, printer)
        elif not pods:
            raise CliError(_nobody(wanted.target, wanted.extension, asked.namespace))
        elif not await log_pods.read(api, pods, wanted, printer, complain):
            raise CliError(f"none of {len(pods)} pods has a log")

    asyncio.run(with_cluster(place, show))


def _of_files(running: RunningUp, asked: _Asked) -> None:
    import time

    from beamline_cli import log_files
    from beamline_cli.up.state import is_held

    folder = running.state / "logs"
    single = log_files.COMPONENTS | log_files.SERVERS
    if asked.target in single and not asked.extension:
        sources = {asked.target: folder / single[asked.target]}
        sources = {name: path for name, path in sources.items() if path.exists()}
    elif asked.target == "operator" and not asked.extension:
        raise CliError(
            "the operator of `beamline up` is that process itself: it writes to its own terminal, more with "
            "--log-level debug"
        )
    else:
        found = log_files.files_of(folder, asked.namespace, asked.target)
        sources = {f"{path.name.removesuffix('.log')}": path for path in found}
    if not sources:
        raise CliError(_nobody(asked.target, asked.extension or asked.target not in single, asked.namespace))
    printer = _Printer(named=len(sources) > 1)
    since = None if asked.since is None else datetime.now(UTC) - asked.since
    followers = {}
    for name, path in sources.items():
        lines, end = log_files.kept(path, since, asked.tail)
        for line in lines:
            printer(name, line)
        followers[name] = log_files.Follower(path, end)

    def pause() -> bool:
        time.sleep(_LOOK_S)
        return is_held(running.state)

    if asked.follow:
        log_files.follow(followers, printer, pause)
        complain("`beamline up` has ended.")


def _nobody(target: str, extension: bool, namespace: str | None) -> str:
    where = f" in namespace {namespace}" if namespace else ""
    if not extension:
        return f"no pod or process of the {target} was found{where}"
    return (
        f"nothing runs for an Extension {target!r}{where}: `beamline get ext` lists them; one without a "
        "workload logs wherever it runs"
    )
