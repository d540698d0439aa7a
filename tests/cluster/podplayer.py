"""Plays the kubelet for one namespace: pods become ready, or get into trouble, by what they are asked to run.

The test clusters have an API server and controllers, but no nodes. What a kubelet would report is written to
the status of each pod as soon as it exists; everything above that (Deployment, ReplicaSets, rollouts) is the
real thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from beamline_sdk.deployment.kube_api import MERGE, KubeApi, KubeError

NOW = "2026-01-01T00:00:00Z"
Trouble = Literal["crash", "image", "config", "unready"]
"""It exits again and again; its image can't be pulled; its Secret is missing; it runs, on loopback, and is
never ready.
"""
SOURCES = (("secret", "secretName", "secrets"), ("configMap", "name", "configmaps"))
"""Of volumes: the field of the source, that of the name in it, and the resource."""


class PodPlayer:
    """Pods whose volumes name what does not exist wait for it, with the events of a kubelet.

    ``breaks`` is a part of an image or a command that gets its pods into ``trouble``; those that crash do
    so with ``last_words``.
    """

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        *,
        breaks: str = "",
        last_words: str = "",
        trouble: Trouble = "crash",
    ) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._breaks = breaks
        self._last_words = last_words
        self._trouble = trouble
        self._told: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> PodPlayer:
        self._task = asyncio.create_task(self._play())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def spoil(self, breaks: str) -> None:
        """From now on these are in trouble, also those that were ready."""
        self._breaks = breaks
        self._told.clear()

    async def names(self) -> set[str]:
        """Names of the pods that are there and stay."""
        return {
            pod["metadata"]["name"]
            async for pod in self._api.items(self._path)
            if not pod["metadata"].get("deletionTimestamp")
        }

    async def _play(self) -> None:
        while True:
            with suppress(KubeError):
                async for pod in self._api.items(self._path):
                    if pod["metadata"]["uid"] in self._told:
                        continue
                    if missing := [one async for one in self._missing(pod)]:
                        await self._wait_for(pod, missing)
                        continue
                    self._told.add(pod["metadata"]["uid"])
                    await self._report(pod)
            await asyncio.sleep(0.05)

    async def _missing(self, pod: dict[str, Any]) -> AsyncIterator[str]:
        """What a kubelet says of each volume that can't be mounted."""
        for volume in pod["spec"].get("volumes", ()):
            for source, field, resource in SOURCES:
                name = volume.get(source, {}).get(field)
                path = self._path.removesuffix("pods") + f"{resource}/{name}"
                if name is not None and await self._api.find(path) is None:
                    why = f'{resource.removesuffix("s")} "{name}" not found'
                    yield f'MountVolume.SetUp failed for volume "{volume["name"]}" : {why}'

    async def _wait_for(self, pod: dict[str, Any], missing: list[str]) -> None:
        meta = pod["metadata"]
        regarding = {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
        container = pod["spec"]["containers"][0]
        state = {
            "name": container["name"], "image": container["image"], "imageID": "", "ready": False,
            "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}},
        }  # fmt: skip
        kinds = {"PodScheduled": "True", "PodReadyToStartContainers": "False", "Ready": "False"}
        conditions = [
            {"type": kind, "status": status, "lastTransitionTime": NOW} for kind, status in kinds.items()
        ]
        status = {"phase": "Pending", "conditions": conditions, "containerStatuses": [state]}
        await self._patch_status(pod, status)
        for number, message in enumerate(missing):
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            event = {
                "metadata": {"name": f"{meta['name']}.{number}"}, "involvedObject": regarding,
                "reason": "FailedMount", "message": message, "type": "Warning", "lastTimestamp": now,
            }  # fmt: skip
            with suppress(KubeError):  # told already
                await self._api.request("POST", self._path.removesuffix("pods") + "events", body=event)

    async def _report(self, pod: dict[str, Any]) -> None:
        container = pod["spec"]["containers"][0]
        asked = [container["image"], *container.get("command", ()), *container.get("args", ())]
        broken = bool(self._breaks) and self._breaks in " ".join(asked)
        reported: dict[str, Any] = {
            "name": container["name"], "image": container["image"], "imageID": "", "ready": not broken,
            "restartCount": 0, "state": {"running": {"startedAt": NOW}},
        }  # fmt: skip
        if broken:
            reported |= self._in_trouble()
        ready = "False" if broken else "True"
        conditions = [
            {"type": name, "status": ready, "lastTransitionTime": NOW}
            for name in ("Ready", "ContainersReady")
        ]
        status = {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "conditions": conditions,
            "containerStatuses": [reported],
        }
        await self._patch_status(pod, status)

    async def _patch_status(self, pod: dict[str, Any], status: dict[str, Any]) -> None:
        path = f"{self._path}/{pod['metadata']['name']}/status"
        with suppress(KubeError):  # it is gone meanwhile
            await self._api.request("PATCH", path, body={"status": status}, content_type=MERGE)

    def _in_trouble(self) -> dict[str, Any]:
        match self._trouble:
            case "image":
                return {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}
            case "config":
                message = 'secret "keys" not found'
                return {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": message}}}
            case "unready":
                return {"started": True}
            case _:
                ended = {"exitCode": 1, "message": self._last_words, "startedAt": NOW, "finishedAt": NOW}
                return {
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "restartCount": 3,
                    "lastState": {"terminated": ended},
                }
