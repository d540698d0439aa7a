"""Providers that run workloads: deploy, scale, roll back, say how it is.

They stand on the port that the operator's reconcile core uses (:mod:`beamline_sdk.deployment.port`), on the
same two adapters: server-side apply in a cluster, supervised processes on a laptop. What this layer adds is
for people and programs that have no custom resource: a configuration of a few fields, one result type that
never raises, and the last states of each workload, to which ``rollback`` returns.

That history lives in the provider, at most :data:`HISTORY` states of each workload: a provider in a new
process has none, and says so. Whoever needs more keeps the manifests in Git and lets the operator apply them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import Field, ValidationError

from beamline_contract.model import InvalidObjectError
from beamline_contract.model import faults_of as rule_faults
from beamline_contract.names import GROUP, MANAGED_BY
from beamline_contract.workload import EnvVar, Resources, Workload

from ..deployment.port import DeploymentError, DeploymentRequest, Deployments, DeploymentStatus, Phase
from ..deployment.process import ProcessDeployments
from .provider import BaseProvider, ProviderConfig, ProviderKind

if TYPE_CHECKING:
    from ..deployment.kube_api import KubeApi

HISTORY: Final = 10
"""States of one workload that are kept for a rollback."""
_POLL_S: Final = 0.1
_SETTLED: Final = frozenset(
    {Phase.READY, Phase.SCALED_TO_ZERO, Phase.FAILED, Phase.NOT_RUNNABLE, Phase.CREDENTIALS_MISSING}
)
_GOOD: Final = frozenset({Phase.READY, Phase.SCALED_TO_ZERO, Phase.PROGRESSING})


class DeploymentConfig(ProviderConfig):
    """Where and what to run. ``name`` is the workload's name as well."""

    environment: str = Field(default="development", min_length=1, max_length=63)
    """A label of the workload, such as production."""
    namespace: str = Field(default="default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    replicas: int = Field(default=1, ge=0, le=1000)
    resources: Resources = Resources()
    image: str = "ghcr.io/beamline/beamline:0.1.0"
    command: tuple[str, ...] = ()
    """The program; a local process needs one."""
    env: tuple[EnvVar, ...] = ()
    """As ``spec.workload.env`` of an Extension: secrets only by ``valueFrom.secretKeyRef``."""
    probes: bool = True
    """Whether the workload serves /healthz and /readyz on METRICS_PORT."""
    context: str | None = None
    """Of the kubeconfig; None: the current one."""
    kubeconfig: str | None = None
    """Path; None: the pod's own account, else the default kubeconfig."""
    logs: str | None = None
    """Folder for logs of local processes; None: the user's state folder."""

    def workload(self) -> Workload:
        """The workload in the words of the custom resource. Raises ValidationError, InvalidObjectError."""
        workload = Workload.model_validate(
            {
                "image": self.image,
                "command": self.command,
                "replicas": self.replicas,
                "resources": self.resources.model_dump(by_alias=True),
                "env": [one.model_dump(by_alias=True, exclude_none=True) for one in self.env],
                "probes": {"enabled": self.probes},
            }
        )
        faults = rule_faults(workload)
        if faults:
            raise InvalidObjectError(faults)
        return workload


@dataclass(frozen=True, slots=True)
class DeploymentResult:
    """What came of a request. ``deployment_id`` is ``namespace/name``; ``status`` a word of the port's
    :class:`Phase`; ``message`` a sentence for people, empty when all is well.
    """

    success: bool
    deployment_id: str
    status: str
    message: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


class DeploymentProvider(BaseProvider[DeploymentConfig]):
    """Runs workloads through the deployments port. Its methods never raise for what the world refuses.

    ``deploy`` and the others return when the world has taken the order; ``wait_s`` waits until it has come
    true, or has failed. Calls for one workload are done one after the other.
    """

    kind: ClassVar[ProviderKind] = "deployment"
    config_model: ClassVar[type[ProviderConfig]] = DeploymentConfig

    def __init__(self, config: DeploymentConfig, *, deployments: Deployments | None = None) -> None:
        super().__init__(config)
        self._given = deployments
        self._deployments = deployments
        self._history: dict[str, deque[DeploymentRequest]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @abstractmethod
    async def connect(self) -> Deployments:
        """The adapter. Raises :class:`DeploymentError`."""

    async def disconnect(self) -> None:
        """Closes what :meth:`connect` opened."""

    async def open(self) -> None:
        """Connects."""
        if self._deployments is None:
            self._deployments = await self.connect()

    async def close(self) -> None:
        """Disconnects. An adapter that was given stays open."""
        if self._given is None:
            self._deployments = None
            await self.disconnect()

    def get_capabilities(self) -> tuple[str, ...]:
        """What can be asked of it."""
        return ("deploy", "scale", "rollback", "get_status", "delete")

    async def check(self) -> str | None:
        """Whether the adapter answers."""
        try:
            await self._adapter().get_status(self.config.namespace, self.config.name)
        except DeploymentError as error:
            return str(error)
        return None

    async def deploy(
        self, config: DeploymentConfig | None = None, *, wait_s: float = 0.0
    ) -> DeploymentResult:
        """Makes what ``config`` (default: the provider's own) describes run."""
        wanted = config or self.config
        deployment_id = f"{wanted.namespace}/{wanted.name}"
        try:
            request = _request(wanted)
        except InvalidObjectError as error:
            return DeploymentResult(False, deployment_id, "refused", str(error))
        except ValidationError as error:
            what = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            return DeploymentResult(False, deployment_id, "refused", what)
        return await self._ordered(deployment_id, lambda: self._apply(deployment_id, request), wait_s)

    async def scale(self, deployment_id: str, replicas: int, *, wait_s: float = 0.0) -> DeploymentResult:
        """Changes the number of replicas of what was deployed last; 0 stops it."""
        if not 0 <= replicas <= 1000:
            return DeploymentResult(False, deployment_id, "refused", "replicas must be between 0 and 1000")

        async def order() -> DeploymentRequest | str:
            latest = self._history.get(deployment_id)
            if not latest:
                return f"{deployment_id} was not deployed by this provider"
            request = _hashed(replace(latest[-1], replicas=replicas))
            await self._adapter().deploy(request)
            latest[-1] = request  # the same state of another size: a rollback goes past it
            return request

        return await self._ordered(deployment_id, order, wait_s)

    async def rollback(self, deployment_id: str, *, wait_s: float = 0.0) -> DeploymentResult:
        """Returns to the state before the last deploy, with as many replicas as it had."""

        async def order() -> DeploymentRequest | str:
            states = self._history.get(deployment_id)
            if states is None or len(states) < 2:
                return f"{deployment_id} has no earlier state: nothing to roll back to"
            await self._adapter().deploy(states[-2])
            states.pop()
            return states[-1]

        return await self._ordered(deployment_id, order, wait_s)

    async def get_status(self, deployment_id: str) -> DeploymentResult:
        """How the workload is."""
        namespace, _, name = deployment_id.rpartition("/")
        try:
            status = await self._adapter().get_status(namespace or self.config.namespace, name)
        except DeploymentError as error:
            return DeploymentResult(False, deployment_id, "unknown", str(error))
        return _result(deployment_id, status)

    async def delete(self, deployment_id: str) -> DeploymentResult:
        """Removes the workload; absent is fine."""

        async def order() -> str:
            namespace, _, name = deployment_id.rpartition("/")
            await self._adapter().delete(namespace or self.config.namespace, name)
            self._history.pop(deployment_id, None)
            return ""

        return await self._ordered(deployment_id, order, 0.0)

    async def _apply(self, deployment_id: str, request: DeploymentRequest) -> DeploymentRequest:
        await self._adapter().deploy(request)
        states = self._history.setdefault(deployment_id, deque(maxlen=HISTORY))
        if not states or states[-1].hash != request.hash:
            states.append(request)
        return request

    async def _ordered(
        self, deployment_id: str, order: Callable[[], Awaitable[DeploymentRequest | str]], wait_s: float
    ) -> DeploymentResult:
        async with self._locks.setdefault(deployment_id, asyncio.Lock()):
            try:
                done = await order()
                if isinstance(done, str):
                    return DeploymentResult(
                        not done, deployment_id, "refused" if done else Phase.ABSENT.value, done
                    )
                return await self._outcome(deployment_id, done, wait_s)
            except DeploymentError as error:
                return DeploymentResult(
                    False, deployment_id, "refused", str(error), {"retryable": error.retryable}
                )

    async def _outcome(
        self, deployment_id: str, request: DeploymentRequest, wait_s: float
    ) -> DeploymentResult:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + wait_s
        while True:
            status = await self._adapter().get_status(request.namespace, request.name)
            arrived = status.hash == request.hash and status.phase in _SETTLED
            if arrived or loop.time() >= ends_at:
                break
            await asyncio.sleep(_POLL_S)
        result = _result(deployment_id, status)
        if wait_s and not arrived:
            return replace(
                result, success=False, message=f"not settled within {wait_s:g} s: {status.message}"
            )
        return result

    def _adapter(self) -> Deployments:
        if self._deployments is None:
            raise DeploymentError(f"{self.name} is not initialized", retryable=False)
        return self._deployments


class ProcessDeploymentProvider(DeploymentProvider):
    """Local processes, supervised. They end with the provider."""

    provider_type: ClassVar[str] = "process"

    async def connect(self) -> Deployments:
        """A supervisor of its own."""
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        folder = Path(self.config.logs) if self.config.logs else state / "beamline" / "deployments"
        return ProcessDeployments(folder)

    async def close(self) -> None:
        """Stops the processes."""
        adapter = self._deployments if self._given is None else None
        if isinstance(adapter, ProcessDeployments):
            await adapter.stop()
        await super().close()


class KubernetesDeploymentProvider(DeploymentProvider):
    """Deployments of a cluster, by server-side apply. They stay when the provider ends."""

    provider_type: ClassVar[str] = "kubernetes"

    def __init__(self, config: DeploymentConfig, *, deployments: Deployments | None = None) -> None:
        super().__init__(config, deployments=deployments)
        self._api: KubeApi | None = None

    async def connect(self) -> Deployments:
        """A client of the API server that the configuration names."""
        try:
            from ..deployment.kube_api import KubeApi, KubeError  # noqa: PLC0415 -- an extra that few need
            from ..deployment.kubernetes import KubernetesDeployments  # noqa: PLC0415
        except ImportError as error:
            raise DeploymentError(
                "deployments to a cluster need the package kubernetes: pip install 'beamline[operator]'",
                retryable=False,
            ) from error
        try:
            self._api = await KubeApi.connect(self.config.kubeconfig, self.config.context)
        except KubeError as error:
            raise DeploymentError(str(error), retryable=error.retryable) from error
        return KubernetesDeployments(self._api)

    async def disconnect(self) -> None:
        """Closes the client."""
        api, self._api = self._api, None
        if api is not None:
            await api.close()


def _request(config: DeploymentConfig) -> DeploymentRequest:
    extension_id = config.name.replace("-", "_")
    labels = {
        "app.kubernetes.io/name": config.name,
        "app.kubernetes.io/instance": config.name,
        "app.kubernetes.io/component": "provider",
        "app.kubernetes.io/part-of": "beamline",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        "app.kubernetes.io/version": config.version,
        f"{GROUP}/extension-id": extension_id,
        f"{GROUP}/environment": config.environment,
    }
    return _hashed(
        DeploymentRequest(
            namespace=config.namespace,
            name=config.name,
            owner_uid="",
            generation=1,
            workload=config.workload(),
            replicas=config.replicas,
            env={"BEAMLINE_EXTENSION_ID": extension_id, "METRICS_PORT": "9090"},
            hash="",
            labels=labels,
        )
    )


def _hashed(request: DeploymentRequest) -> DeploymentRequest:
    document = {
        "workload": request.workload.to_manifest(),
        "replicas": request.replicas,
        "labels": dict(request.labels),
    }
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return replace(request, hash=hashlib.sha256(canonical.encode()).hexdigest()[:16])


def _result(deployment_id: str, status: DeploymentStatus) -> DeploymentResult:
    metadata = {
        "replicas": status.replicas,
        "ready_replicas": status.ready_replicas,
        "revision": status.hash,
        **status.details,
    }
    return DeploymentResult(
        status.phase in _GOOD, deployment_id, status.phase.value, status.message, metadata
    )
