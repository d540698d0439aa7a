"""Where a command looks: a cluster, or a ``beamline up`` of this machine.

What is named wins: ``--kubeconfig``, then ``--state``. With neither, the ``up`` that runs here; where none
does, the cluster that ``kubectl`` would ask (``KUBECONFIG``, ``~/.kube/config``, a pod's own account).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .faults import CliError, ExitCode

if TYPE_CHECKING:
    from beamline_sdk.deployment.kube_api import KubeApi

    from .up.state import RunningUp

Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        help="The cluster of this file. Default: a running `beamline up`; where there is none, what "
        "KUBECONFIG or ~/.kube/config names."
    ),
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; default: its current one.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; default: all of them.")]


@dataclass(frozen=True, slots=True)
class Place:
    """Exactly one of the two: ``running``, or a cluster (``kubeconfig`` None: by default rules)."""

    running: RunningUp | None
    kubeconfig: Path | None = None
    context: str | None = None

    async def connect(self) -> KubeApi:
        """The API server of a cluster. Raises :class:`CliError`."""
        from beamline_sdk.deployment.kube_api import KubeApi, KubeError

        try:
            return await KubeApi.connect(
                None if self.kubeconfig is None else str(self.kubeconfig), self.context
            )
        except KubeError as error:
            what = "the default" if self.kubeconfig is None else str(self.kubeconfig)
            raise CliError(f"{what} is no usable kubeconfig: {error}", ExitCode.CONFIGURATION) from error


def find_place(kubeconfig: Path | None, state: Path | None, context: str | None = None) -> Place:
    """See the module. Raises :class:`CliError` where there is nothing to look at."""
    from .up.state import find_running

    if kubeconfig is not None:
        if not kubeconfig.is_file():
            raise CliError(
                f"{kubeconfig} is no usable kubeconfig: there is no such file", ExitCode.CONFIGURATION
            )
        return Place(None, kubeconfig, context)
    if context is not None and state is None:
        return Place(None, None, context)
    try:
        return Place(find_running(state))
    except CliError as error:
        if state is not None or error.code is not ExitCode.UNAVAILABLE or not cluster_is_named():
            raise
    return Place(None)


def cluster_is_named() -> bool:
    """Whether ``kubectl`` would know which cluster is meant."""
    if os.environ.get("KUBECONFIG") or os.environ.get("KUBERNETES_SERVICE_HOST"):
        return True
    try:
        return (Path.home() / ".kube" / "config").is_file()
    except RuntimeError:  # nobody's home
        return False
