"""Logs of pods in a cluster: those that are there, and, followed, those that come.

One task per container that is followed. Every two seconds the pods are listed again: a new one is read from
its beginning, one that ended is left alone. A container that has no log yet is asked again then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from beamline_contract.names import GROUP, object_id
from beamline_sdk.deployment.kube_api import KubeError

from .doctor.patient import COMPONENTS, Patient

if TYPE_CHECKING:
    from beamline_sdk.deployment.kube_api import KubeApi

LOOK_S: Final = 2.0
Show = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which logs: a component or an extension, in a namespace or in all, and how much of them."""

    target: str
    extension: bool
    namespace: str | None = None
    container: str | None = None
    previous: bool = False
    since_s: int | None = None
    tail: int | None = None

    def params(self, pod: dict[str, Any], *, follow: bool) -> dict[str, str | int]:
        """The query of a pod's log."""
        params: dict[str, str | int] = {
            "container": self.container or pod["spec"]["containers"][0]["name"],
            "follow": "true" if follow else "false",
        }
        if self.previous:
            params["previous"] = "true"
        if self.since_s is not None:
            params["sinceSeconds"] = max(1, self.since_s)
        if self.tail is not None:
            params["tailLines"] = self.tail
        return params


async def pods_of(api: KubeApi, wanted: Wanted) -> list[dict[str, Any]]:
    """The pods that are meant, by namespace and name. Raises ``KubeError``."""
    found: list[dict[str, Any]] = []
    if wanted.extension:
        where = f"/namespaces/{wanted.namespace}" if wanted.namespace else ""
        selector = f"{GROUP}/extension-id={object_id(wanted.target)},app.kubernetes.io/part-of=beamline"
        found = [pod async for pod in api.items(f"/api/v1{where}/pods", {"labelSelector": selector})]
        found = [
            pod for pod in found if pod["metadata"]["labels"].get("app.kubernetes.io/name") == wanted.target
        ]
    else:
        assert wanted.target in COMPONENTS
        for deployment in await Patient(api=api, installed_in=wanted.namespace).deployments(wanted.target):
            labels = deployment["spec"]["selector"]["matchLabels"]
            selector = ",".join(f"{name}={value}" for name, value in labels.items())
            path = f"/api/v1/namespaces/{deployment['metadata']['namespace']}/pods"
            found += [pod async for pod in api.items(path, {"labelSelector": selector})]
    return sorted(found, key=lambda pod: (pod["metadata"]["namespace"], pod["metadata"]["name"]))


async def read(
    api: KubeApi, pods: list[dict[str, Any]], wanted: Wanted, show: Show, complain: Callable[[str], None]
) -> int:
    """Shows what there is, pod by pod; returns how many pods had a log. Raises ``KubeError``."""
    shown = 0
    for pod in pods:
        try:
            async for line in api.lines(_path(pod), wanted.params(pod, follow=False)):
                show(_name(pod), line)
        except KubeError as error:
            if error.status in {0, 401, 403}:
                raise
            complain(f"{_name(pod)}: {error}")
        else:
            shown += 1
    return shown


async def follow(
    api: KubeApi,
    wanted: Wanted,
    show: Show,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Shows what there is and what comes, also of pods that come, until it is cancelled. Raises
    ``KubeError``.
    """
    running: dict[str, asyncio.Task[_End]] = {}
    done: set[str] = set()
    how = {_End.NOTHING: wanted}
    """How much is asked of a pod, by how its last attempt ended; one that was never asked: NOTHING."""
    try:
        while True:
            for pod in await pods_of(api, wanted):
                uid = pod["metadata"]["uid"]
                end = _End.NOTHING
                if (task := running.get(uid)) is not None:
                    if not task.done():
                        continue
                    end = task.result()
                if end is _End.WHOLE:
                    done.add(uid)
                if uid not in done:
                    running[uid] = asyncio.create_task(_one(api, pod, how[end], show))
            await sleep(LOOK_S)
            how = {
                _End.NOTHING: replace(wanted, since_s=None, tail=None),
                _End.BROKEN: replace(wanted, since_s=int(LOOK_S) + 1, tail=None),
            }
    finally:
        for task in running.values():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*running.values(), return_exceptions=True)


class _End(Enum):
    """How reading one pod ended."""

    NOTHING = "it has no log yet"
    BROKEN = "the connection broke: what came meanwhile is asked for, and a line may come twice"
    WHOLE = "the container ended"


async def _one(api: KubeApi, pod: dict[str, Any], wanted: Wanted, show: Show) -> _End:
    """Follows one pod to its end."""
    end = _End.NOTHING
    try:
        async for line in api.lines(_path(pod), wanted.params(pod, follow=True), silence_s=0):
            end = _End.BROKEN
            show(_name(pod), line)
    except KubeError:
        return end
    return _End.WHOLE


def _name(pod: dict[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _path(pod: dict[str, Any]) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/log"
