"""What is looked at, and what every check may know of it: each question is asked once, however many checks
want the answer.

A look-up that failed fails for each check that needs it, with the same exception; :mod:`.checks` turns that
into a finding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from beamline_contract.names import GROUP, VERSION
from beamline_contract.objects import KINDS, PLURAL

if TYPE_CHECKING:
    from beamline_cli.up.state import RunningUp
    from beamline_registry.inspection import Inspection
    from beamline_sdk.deployment.kube_api import KubeApi
    from beamline_sdk.link import LinkSettings
    from beamline_sdk.nats_probe import NatsFacts

T = TypeVar("T")

COMPONENTS: Final = ("operator", "router", "admin")
ROUTERS_S: Final = 2.0
"""How long the first router may take to answer."""


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; ``help`` is the command or the step that helps."""

    verdict: Verdict
    message: str
    help: str = ""


Look: TypeAlias = "Callable[[Patient], Awaitable[Finding]]"


def ok(message: str) -> Finding:
    """All is well."""
    return Finding(Verdict.OK, message)


def warning(message: str, help: str = "") -> Finding:
    """It works, but somebody should know."""
    return Finding(Verdict.WARNING, message, help)


def failed(message: str, help: str = "") -> Finding:
    """Something is broken."""
    return Finding(Verdict.FAILED, message, help)


def skipped(message: str, help: str = "") -> Finding:
    """Nothing was looked at, and why."""
    return Finding(Verdict.SKIPPED, message, help)


def first(names: Sequence[str], most: int = 5) -> str:
    """Names joined, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


@dataclass(frozen=True, slots=True)
class RouterAnswer:
    """What a router says of itself, and when that arrived here (Unix milliseconds)."""

    instance: str
    said: Mapping[str, Any]
    arrived_ms: float


@dataclass(slots=True)
class Patient:
    """What is looked at; None where nobody named it. An empty ``namespaces`` is all of them.

    ``running`` is a ``beamline up`` of this machine; ``installed_in`` the namespace of the release, None:
    looked for.
    """

    api: KubeApi | None = None
    database_url: str | None = None
    nats: LinkSettings | None = None
    namespaces: Sequence[str] = ()
    running: RunningUp | None = None
    installed_in: str | None = None
    _known: dict[str, asyncio.Task[Any]] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """Our own clock."""
        return datetime.now(UTC)

    @property
    def cluster(self) -> KubeApi:
        """The API server, for checks that are run with one only."""
        assert self.api is not None
        return self.api

    async def objects(self) -> list[dict[str, Any]]:
        """Every Extension and RoutingPolicy in scope. Raises ``KubeError``."""
        return await self._once("objects", self._objects)

    async def crds(self) -> dict[str, dict[str, Any] | None]:
        """Our definitions by kind, None for one that is not there. Raises ``KubeError``."""
        return await self._once("crds", self._crds)

    async def deployments(self, component: str) -> list[dict[str, Any]]:
        """Deployments of one of :data:`COMPONENTS`. Raises ``KubeError``."""
        found = await self._once("deployments", self._deployments)
        return [item for item in found if component_of(item) == component]

    async def pods(self) -> list[dict[str, Any]]:
        """Pods of Beamline itself and of extensions. Raises ``KubeError``."""
        return await self._once("pods", self._pods)

    async def server_clock(self) -> datetime:
        """The API server's time. Raises ``KubeError``."""
        return await self._once("clock", self.cluster.clock)

    async def registry(self) -> Inspection:
        """The registry's database. Raises ``RegistryError``."""
        from beamline_registry.inspection import inspect

        url = self.database_url
        assert url is not None
        return await self._once("registry", lambda: inspect(url))

    async def broker(self) -> NatsFacts:
        """NATS. Raises ``LinkError``."""
        from beamline_sdk.nats_probe import look

        settings = self.nats
        assert settings is not None
        return await self._once("nats", lambda: look(settings))

    async def routers(self) -> list[RouterAnswer]:
        """Routers that answer over NATS, sorted. Raises ``LinkError`` where NATS does not let us ask."""
        return await self._once("routers", self._routers)

    async def _once(self, what: str, look: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if what not in self._known:
            self._known[what] = asyncio.create_task(look(), name=f"check-{what}")
        found: T = await self._known[what]
        return found

    async def _objects(self) -> list[dict[str, Any]]:
        if self.api is None:
            from beamline_cli.up.state import read_objects

            assert self.running is not None
            return read_objects(self.running.state)
        found: list[dict[str, Any]] = []
        for kind in KINDS:
            for path in self._paths(f"/apis/{GROUP}/{VERSION}", PLURAL[kind]):
                found += [{**item, "kind": kind} async for item in self.api.items(path)]
        return found

    async def _crds(self) -> dict[str, dict[str, Any] | None]:
        root = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        return {kind: await self.cluster.find(f"{root}/{PLURAL[kind]}.{GROUP}") for kind in KINDS}

    async def _deployments(self) -> list[dict[str, Any]]:
        selector = {"labelSelector": f"app.kubernetes.io/component in ({','.join(COMPONENTS)})"}
        where = f"/namespaces/{self.installed_in}" if self.installed_in else ""
        path = f"/apis/apps/v1{where}/deployments"
        return [item async for item in self.cluster.items(path, selector) if component_of(item)]

    async def _pods(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        ours = {"labelSelector": "app.kubernetes.io/part-of=beamline"}
        for path in self._paths("/api/v1", "pods"):
            async for pod in self.cluster.items(path, ours):
                found[pod["metadata"]["uid"]] = pod
        for component in COMPONENTS:
            for deployment in await self.deployments(component):
                labels = deployment["spec"]["selector"]["matchLabels"]
                own = {"labelSelector": ",".join(f"{name}={value}" for name, value in labels.items())}
                path = f"/api/v1/namespaces/{deployment['metadata']['namespace']}/pods"
                async for pod in self.cluster.items(path, own):
                    found[pod["metadata"]["uid"]] = pod
        return list(found.values())

    async def _routers(self) -> list[RouterAnswer]:
        from beamline_cli.routers import gather

        assert self.nats is not None
        answers = [
            RouterAnswer(str(said.get("instance")), said["result"], arrived * 1000)
            for said, arrived in await gather(self.nats, "status", {}, ROUTERS_S)
            if "result" in said
        ]
        return sorted(answers, key=lambda one: one.instance)

    def _paths(self, root: str, plural: str) -> list[str]:
        return [f"{root}/namespaces/{name}/{plural}" for name in self.namespaces] or [f"{root}/{plural}"]


def component_of(deployment: Mapping[str, Any]) -> str:
    """Which of our components a Deployment runs: its label and its first argument say the same; else ''."""
    name = str((deployment["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ""))
    containers = deployment["spec"]["template"]["spec"].get("containers") or [{}]
    words = [*(containers[0].get("command") or ()), *(containers[0].get("args") or ())]
    return name if name in COMPONENTS and name in words[:2] else ""


def name_of(item: Mapping[str, Any]) -> str:
    """``namespace/name``."""
    meta = item["metadata"]
    return f"{meta.get('namespace', 'default')}/{meta['name']}"


def condition(item: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition of an object; empty where it has none of that type."""
    entries = (item.get("status") or {}).get("conditions") or ()
    return next((entry for entry in entries if entry.get("type") == kind), {})
