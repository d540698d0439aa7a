"""Which version do the Secrets and ConfigMaps have that workloads read? Metadata only, and opt-in by a label.

A Secret or ConfigMap with the label ``beamline.io/roll: "true"`` rolls the workloads that refer to it when it
changes. Nothing else is watched, and of these only the metadata is asked for: the API server is told so in
the ``Accept`` header and leaves the data out, so no secret value ever enters this process.

One task per resource and namespace: list, then watch from there; a watch that ends, or says nothing for
:data:`SILENCE_S`, is opened again, one that broke begins with a list. Where the operator may not list them
(403) the feature is off for that resource, which is logged once per term; rights that come later are noticed
by the next try, a minute later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from beamline_contract.names import GROUP
from beamline_sdk.deployment.kube_api import METADATA, METADATA_LIST, KubeApi, KubeError
from beamline_sdk.waiting import ended

from ..core.ports import StoreError

ROLL_LABEL: Final = f"{GROUP}/roll"
RESOURCES: Final[dict[str, str]] = {"Secret": "secrets", "ConfigMap": "configmaps"}
BREAK_S: Final = 1.0
SILENCE_S: Final = 4.0
"""As for the other watches (:mod:`.kopf_edge`)."""
FORBIDDEN_S: Final = 60.0
_SELECTOR: Final = f"{ROLL_LABEL}=true"

_log = structlog.get_logger()


class WatchedInputs:
    """Versions by kind, namespace and name. ``on_change`` hears (kind, namespace, name)."""

    def __init__(self, api: KubeApi, *, namespaces: Sequence[str] = (), silence_s: float = SILENCE_S) -> None:
        self.on_change: Callable[[str, str, str], None] = lambda kind, namespace, name: None
        self._api = api
        self._namespaces = tuple(namespaces) or ("",)
        self._silence_s = silence_s
        self._versions: dict[tuple[str, str, str], str] = {}
        self._resume: dict[tuple[str, str], str] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def version(self, kind: str, namespace: str, name: str) -> str | None:
        """Identifies the present content; None for what is not there or not labelled."""
        return self._versions.get((kind, namespace, name))

    async def start(self) -> None:
        """Lists everything, then watches. Raises :class:`StoreError` where the API server does not answer:
        to begin without the versions would roll every workload that has some.
        """
        for kind in RESOURCES:
            for namespace in self._namespaces:
                try:
                    await self._list(kind, namespace)
                except KubeError as error:
                    if error.status != 403:
                        raise StoreError(f"{RESOURCES[kind]} can't be listed: {error}") from error
                    _log.info("inputs.not_permitted", resource=RESOURCES[kind], namespace=namespace or "all")
        self._tasks = [
            asyncio.create_task(self._follow(kind, namespace), name=f"inputs-{kind}-{namespace}")
            for kind in RESOURCES
            for namespace in self._namespaces
        ]

    async def stop(self) -> None:
        """Ends the watches."""
        tasks, self._tasks = self._tasks, []
        await ended(*tasks)

    async def _follow(self, kind: str, namespace: str) -> None:
        now = asyncio.get_running_loop().time
        while True:
            began, pause = now(), BREAK_S
            try:
                if (kind, namespace) not in self._resume:
                    await self._list(kind, namespace)
                await self._listen(kind, namespace)
            except KubeError as error:
                self._resume.pop((kind, namespace), None)
                pause = FORBIDDEN_S if error.status == 403 else BREAK_S
                _log.debug("inputs.watch_broke", resource=RESOURCES[kind], reason=str(error))
            lasted = now() - began
            await asyncio.sleep(0.0 if lasted > 2 * pause else pause)  # a watch that lasted is opened at once

    async def _listen(self, kind: str, namespace: str) -> None:
        """Takes in one watch, until it ends or has said nothing for too long."""
        now = asyncio.get_running_loop().time
        with suppress(TimeoutError):
            async with asyncio.timeout(self._silence_s) as silence:
                async for event in self._events(kind, namespace):
                    silence.reschedule(now() + self._silence_s)
                    self._take(kind, namespace, event)

    async def _events(self, kind: str, namespace: str) -> AsyncIterator[Mapping[str, Any]]:
        params: dict[str, str | int] = {
            "labelSelector": _SELECTOR,
            "resourceVersion": self._resume[kind, namespace],
            "allowWatchBookmarks": "true",
        }
        async for event in self._api.watch(_path(kind, namespace), params, accept=METADATA):
            yield event

    def _take(self, kind: str, namespace: str, event: Mapping[str, Any]) -> None:
        document = event.get("object") or {}
        if event.get("type") == "ERROR":
            raise KubeError(int(document.get("code", 410)), "Expired", str(document.get("message", "")))
        meta = document["metadata"]
        self._resume[kind, namespace] = meta["resourceVersion"]
        if event["type"] == "BOOKMARK":
            return
        self._put(kind, meta, gone=event["type"] == "DELETED")

    async def _list(self, kind: str, namespace: str) -> None:
        """Pages of metadata. The version to watch from is that of the first page, the oldest."""
        params: dict[str, str | int] = {"labelSelector": _SELECTOR, "limit": 500}
        found: list[Mapping[str, Any]] = []
        resume = ""
        while True:
            page = await self._api.request("GET", _path(kind, namespace), params=params, accept=METADATA_LIST)
            resume = resume or page["metadata"]["resourceVersion"]
            found += [item["metadata"] for item in page.get("items") or ()]
            token = page["metadata"].get("continue")
            if not token:
                break
            params["continue"] = token
        listed = {(kind, meta["namespace"], meta["name"]) for meta in found}
        for meta in found:
            self._put(kind, meta, gone=False)
        for place in [place for place in self._versions if place[0] == kind and place not in listed]:
            if namespace in {"", place[1]}:
                del self._versions[place]
                self.on_change(*place)
        self._resume[kind, namespace] = resume

    def _put(self, kind: str, meta: Mapping[str, Any], *, gone: bool) -> None:
        place = (kind, str(meta["namespace"]), str(meta["name"]))
        before = self._versions.get(place)
        if gone:
            self._versions.pop(place, None)
        else:
            self._versions[place] = f"{meta['uid']}/{meta['resourceVersion']}"
        if self._versions.get(place) != before:
            self.on_change(*place)


def _path(kind: str, namespace: str) -> str:
    plural = RESOURCES[kind]
    return f"/api/v1/namespaces/{namespace}/{plural}" if namespace else f"/api/v1/{plural}"
