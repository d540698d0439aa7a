"""``beamline check``, also called ``beamline doctor``: what is wrong with an installation, and what helps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import Format, as_json, as_yaml, say, table

if TYPE_CHECKING:
    from beamline_cli.doctor.checks import Finding


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="check")(check)
    app.command(name="doctor", help="The same as `check`.")(check)


def check(  # noqa: PLR0917 -- each is an option of the command line
    kubeconfig: Annotated[
        Path | None, typer.Option(envvar="KUBECONFIG", help="The cluster; --in-cluster for a pod's own.")
    ] = None,
    in_cluster: Annotated[bool, typer.Option(help="Use the ServiceAccount of this pod.")] = False,
    database_url: Annotated[
        str | None, typer.Option(envvar="BEAMLINE_DATABASE_URL", help="postgresql://user@host:port/database")
    ] = None,
    nats_url: Annotated[str | None, typer.Option(envvar="NATS_URL", help="nats://host:port")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Only these namespaces; may be repeated.")
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
    """Look at an installation: cluster, rights, stuck objects, database, NATS.

    What is not named is skipped. Exit code 1 where a check failed.
    """
    import asyncio

    if (every_object or stop_operator) and not release_finalizers:
        raise CliError("--every-object and --stop-operator go with --release-finalizers", ExitCode.USAGE)
    path = str(kubeconfig) if kubeconfig is not None else None
    spaces = tuple(namespace or ())
    if release_finalizers:
        if path is None and not in_cluster:
            raise CliError("which cluster? give --kubeconfig FILE or --in-cluster", ExitCode.USAGE)
        if stop_operator is not None and "/" not in stop_operator:
            raise CliError("--stop-operator must be NAMESPACE/NAME", ExitCode.USAGE)
        released = asyncio.run(_release(path, spaces, every_object, stop_operator))
        for name in released:
            say(f"released {name}")
        say(f"{len(released)} objects released; an operator's next full compare removes rows left behind.")
        return
    cluster = path is not None or in_cluster
    _report(asyncio.run(_examine(path, cluster, database_url, nats_url, spaces)), output)


def _report(found: list[tuple[str, Finding]], output: Format) -> None:
    if output in {Format.JSON, Format.YAML}:
        listed = [
            {"check": name, "verdict": one.verdict.value, "message": one.message, "help": one.help}
            for name, one in found
        ]
        say(as_json(listed) if output is Format.JSON else as_yaml(listed))
    else:
        rows = [
            (name, one.verdict.value, f"{one.message}{f': {one.help}' if one.help else ''}")
            for name, one in found
        ]
        for line in table(("CHECK", "VERDICT", "FOUND"), rows):
            say(line)
    failed = [name for name, one in found if one.verdict.value == "failed"]
    if failed:
        raise CliError(f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}")


async def _examine(
    kubeconfig: str | None,
    cluster: bool,
    database_url: str | None,
    nats_url: str | None,
    namespaces: tuple[str, ...],
) -> list[tuple[str, Finding]]:
    from beamline_cli.doctor.checks import Patient, examine
    from beamline_sdk.deployment.kube_api import KubeApi

    api = await KubeApi.connect(kubeconfig) if cluster else None
    try:
        return await examine(Patient(api, database_url, nats_url, namespaces))
    finally:
        if api is not None:
            await api.close()


async def _release(
    kubeconfig: str | None, namespaces: tuple[str, ...], everything: bool, operator: str | None
) -> list[str]:
    from beamline_cli.doctor.finalizers import release, release_for_good, stop_operator
    from beamline_sdk.deployment.kube_api import KubeApi, KubeError

    try:
        api = await KubeApi.connect(kubeconfig)
        try:
            if operator is not None:
                await stop_operator(api, operator)
            if everything:
                return await release_for_good(api, namespaces)
            return await release(api, namespaces, everything=False)
        finally:
            await api.close()
    except KubeError as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    except TimeoutError as error:
        raise CliError(str(error)) from error
