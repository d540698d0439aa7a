"""Objects of a cluster, as the commands of a person read and change them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from beamline_contract.names import GROUP, VERSION
from beamline_contract.objects import KINDS, PLURAL

from .faults import CliError, ExitCode
from .place import Place

if TYPE_CHECKING:
    from beamline_sdk.deployment.kube_api import KubeApi, KubeError

T = TypeVar("T")

ROOT: Final = f"/apis/{GROUP}/{VERSION}"
FIELD_MANAGER: Final = "beamline-cli"


def objects_of(place: Place, kind: str | None, namespace: str | None) -> list[dict[str, Any]]:
    """Extensions and RoutingPolicies of a cluster, or those of one kind or namespace. Raises
    :class:`CliError`.
    """

    async def read(api: KubeApi) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for one in KINDS:
            if kind in {None, one}:
                where = f"/namespaces/{namespace}" if namespace else ""
                path = f"{ROOT}{where}/{PLURAL[one]}"
                found += [
                    {**item, "apiVersion": f"{GROUP}/{VERSION}", "kind": one}
                    async for item in api.items(path)
                ]
        return found

    return asyncio.run(with_cluster(place, read))


async def with_cluster(place: Place, work: Callable[[KubeApi], Awaitable[T]]) -> T:
    """``work`` with the API server of ``place``, closed afterwards. Raises :class:`CliError`."""
    from beamline_sdk.deployment.kube_api import KubeError

    api = await place.connect()
    try:
        return await work(api)
    except KubeError as error:
        raise refused(error) from error
    finally:
        await api.close()


def refused(error: KubeError) -> CliError:
    """What the API server answered, as the end of a command."""
    if error.status == 0:
        return CliError(f"the cluster does not answer: {error}", ExitCode.UNAVAILABLE)
    helps = ""
    if error.status == 404 and "not find the requested resource" in str(error):
        helps = ": apply the CRDs first (`beamline crds | kubectl apply -f -`)"
    code = (
        ExitCode.UNAVAILABLE
        if error.status in {401, 403, 404, 429} or error.status >= 500
        else ExitCode.FAILURE
    )
    return CliError(f"the cluster answers {error.status} {error.reason}: {error}{helps}", code)
