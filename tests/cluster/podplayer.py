"""Plays the kubelet for one namespace: pods become ready, or crash, by what their command says.

The test clusters have an API server and controllers, but no nodes. What a kubelet would report is written to
the status of each pod as soon as it exists; everything above that (Deployment, ReplicaSets, rollouts) is the
real thing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from beamline_sdk.deployment.kube_api import MERGE, KubeApi, KubeError

NOW = "2026-01-01T00:00:00Z"


class PodPlayer:
    """``breaks`` is a part of a command that makes its pods crash, with ``last_words``."""

    def __init__(self, api: KubeApi, namespace: str, *, breaks: str = "", last_words: str = "") -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._breaks = breaks
        self._last_words = last_words
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> PodPlayer:
        self._task = asyncio.create_task(self._play())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

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
                    if not pod.get("status", {}).get("containerStatuses"):
                        await self._report(pod)
            await asyncio.sleep(0.05)

    async def _report(self, pod: dict[str, Any]) -> None:
        container = pod["spec"]["containers"][0]
        said = " ".join([*container.get("command", ()), *container.get("args", ())])
        crashes = bool(self._breaks) and self._breaks in said
        state: dict[str, Any] = {"running": {"startedAt": NOW}}
        if crashes:
            state = {"waiting": {"reason": "CrashLoopBackOff"}}
        reported: dict[str, Any] = {
            "name": container["name"], "image": container["image"], "imageID": "", "ready": not crashes,
            "restartCount": 3 if crashes else 0, "state": state,
        }  # fmt: skip
        if crashes:
            ended = {"exitCode": 1, "message": self._last_words, "startedAt": NOW, "finishedAt": NOW}
            reported["lastState"] = {"terminated": ended}
        ready = "False" if crashes else "True"
        conditions = [
            {"type": name, "status": ready, "lastTransitionTime": NOW}
            for name in ("Ready", "ContainersReady")
        ]
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": [reported]}
        path = f"{self._path}/{pod['metadata']['name']}/status"
        with suppress(KubeError):  # it is gone meanwhile
            await self._api.request("PATCH", path, body={"status": status}, content_type=MERGE)
