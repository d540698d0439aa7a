"""The operator's ports in memory, with the semantics that matter: for unit tests, and for whoever builds on
the core.

:class:`MemoryStore` keeps objects the way an API server does: a change of the spec makes a new generation,
every write a new resourceVersion, an object with finalizers is marked before it goes. ``writes`` counts what
an API server would see.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from beamline_contract.model import InvalidObjectError
from beamline_contract.names import API_VERSION, FINALIZER
from beamline_contract.objects import BrokenObject, Kind, ObjectKey, ObjectMeta, parse_object
from beamline_contract.reports import RouterStatus
from beamline_sdk.deployment.port import DeploymentError, DeploymentRequest, DeploymentStatus, Found, Phase

from .core.ports import Event, StoredObject, StoreError


class ManualClock:
    """Wall time, monotonic time and timers that move only when a test says so."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def time(self) -> float:
        return self._elapsed

    def call_later(
        self, delay: float, callback: Callable[[ObjectKey], None], key: ObjectKey, /
    ) -> ManualTimer:
        timer = ManualTimer(callback, key)
        heapq.heappush(self._timers, (self._elapsed + delay, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Moves time on and fires what became due, in order."""
        end = self._elapsed + seconds
        while self._timers and self._timers[0][0] <= end:
            self._elapsed, _, timer = heapq.heappop(self._timers)
            timer.fire()
        self._elapsed = end


class ManualTimer:
    """A timer of :class:`ManualClock`."""

    def __init__(self, callback: Callable[[ObjectKey], None], key: ObjectKey) -> None:
        self._callback = callback
        self._key = key
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def fire(self) -> None:
        if not self._cancelled:
            self._callback(self._key)


class MemoryStore:
    """An object store in memory. ``fail`` is raised by the next writes while it is set."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.fail: StoreError | None = None
        self.events: list[tuple[ObjectKey, Event]] = []
        self.status_writes: list[tuple[ObjectKey, Mapping[str, Any]]] = []
        self.finalizer_writes: list[tuple[ObjectKey, bool]] = []
        self.on_change: Callable[[ObjectKey], None] = lambda key: None
        self._now = now
        self._objects: dict[ObjectKey, StoredObject] = {}
        self._versions = itertools.count(1)

    @property
    def writes(self) -> int:
        """Writes of status and finalizer so far."""
        return len(self.status_writes) + len(self.finalizer_writes)

    def apply(
        self, kind: Kind, name: str, spec: Mapping[str, Any], *, namespace: str = "default"
    ) -> ObjectKey:
        """Creates an object or replaces its spec; one that breaks its rules is kept as a
        :class:`BrokenObject`.
        """
        key = ObjectKey(kind, namespace, name)
        old = self._objects.get(key)
        metadata = ObjectMeta(
            name=name,
            namespace=namespace,
            uid=str(uuid4()),
            created_at=self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            changed_by="kubectl",
        )
        if old is not None:
            metadata = replace(old.metadata, generation=old.metadata.generation + 1)
        document = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": dict(spec),
        }
        status = old.status if old is not None else {}
        try:
            parsed = parse_object(document)
            self._put(key, replace(parsed, metadata=metadata, status=status))
        except InvalidObjectError as error:
            self._put(key, BrokenObject(kind, metadata, error.faults, spec, status))
        return key

    def delete(self, key: ObjectKey) -> None:
        """Deletes an object: at once, or by a mark where a finalizer holds it."""
        stored = self._objects[key]
        if stored.metadata.finalizers:
            meta = replace(stored.metadata, deleting=True, generation=stored.metadata.generation + 1)
            self._put(key, replace(stored, metadata=meta))
            return
        del self._objects[key]
        self.on_change(key)

    def annotate(self, key: ObjectKey, annotations: Mapping[str, str]) -> None:
        """Changes annotations, which makes no new generation."""
        stored = self._objects[key]
        self._put(key, replace(stored, metadata=replace(stored.metadata, annotations=dict(annotations))))

    def get(self, key: ObjectKey) -> StoredObject | None:
        return self._objects.get(key)

    def list(self, kind: Kind) -> Sequence[StoredObject]:
        return [stored for key, stored in self._objects.items() if key.kind == kind]

    async def write_status(self, key: ObjectKey, status: Mapping[str, Any]) -> None:
        if self.fail is not None:
            raise self.fail
        self.status_writes.append((key, dict(status)))
        stored = self._objects.get(key)
        if stored is not None:
            self._put(key, replace(stored, status=dict(status)))

    async def set_finalizer(self, key: ObjectKey, present: bool) -> None:
        if self.fail is not None:
            raise self.fail
        stored = self._objects.get(key)
        if stored is None or (FINALIZER in stored.metadata.finalizers) == present:
            return
        self.finalizer_writes.append((key, present))
        others = tuple(name for name in stored.metadata.finalizers if name != FINALIZER)
        finalizers = (*others, FINALIZER) if present else others
        if stored.metadata.deleting and not finalizers:
            del self._objects[key]
            self.on_change(key)
            return
        self._put(key, replace(stored, metadata=replace(stored.metadata, finalizers=finalizers)))

    async def record_event(self, key: ObjectKey, event: Event) -> None:
        self.events.append((key, event))

    def condition(self, key: ObjectKey, kind: str) -> Mapping[str, Any]:
        """One condition of an object, empty where there is none."""
        conditions = self._objects[key].status.get("conditions", [])
        return next((item for item in conditions if item["type"] == kind), {})

    def _put(self, key: ObjectKey, stored: StoredObject) -> None:
        version = str(next(self._versions))
        self._objects[key] = replace(stored, metadata=replace(stored.metadata, resource_version=version))
        self.on_change(key)


@dataclass
class MemoryDeployments:
    """Workloads in memory: what is applied is ready at once, unless ``phase`` says otherwise for its name."""

    running: dict[tuple[str, str], DeploymentRequest] = field(default_factory=dict)
    deployed: list[DeploymentRequest] = field(default_factory=list)
    deleted: list[tuple[str, str]] = field(default_factory=list)
    phase: dict[str, tuple[Phase, str]] = field(default_factory=dict)
    fail: DeploymentError | None = None
    torn: set[tuple[str, str]] = field(default_factory=set)
    """Workloads whose owner somebody took away."""
    disturbed: set[tuple[str, str]] = field(default_factory=set)
    """Workloads that others changed since they were applied."""

    async def deploy(self, request: DeploymentRequest) -> None:
        if self.fail is not None:
            raise self.fail
        self.deployed.append(request)
        self.running[request.namespace, request.name] = request
        self.disturbed.discard((request.namespace, request.name))

    async def get_status(
        self, namespace: str, name: str, desired: DeploymentRequest | None = None
    ) -> DeploymentStatus:
        del desired  # ``disturbed`` says it
        request = self.running.get((namespace, name))
        if request is None:
            return DeploymentStatus(Phase.ABSENT)
        phase, message = self.phase.get(name, (Phase.READY, ""))
        if request.replicas == 0:
            phase = Phase.SCALED_TO_ZERO
        ready = request.replicas if phase is Phase.READY else 0
        return DeploymentStatus(
            phase,
            request.replicas,
            ready,
            message,
            request.hash if (namespace, name) not in self.disturbed else "",
            f"app.kubernetes.io/name={name}",
            retained=not request.owner_uid,
        )

    def workloads(self) -> Collection[Found]:
        return [
            Found(
                *key, owned=bool(request.owner_uid) and key not in self.torn, retained=not request.owner_uid
            )
            for key, request in self.running.items()
        ]

    async def release(self, namespace: str, name: str) -> None:
        if self.fail is not None:
            raise self.fail
        if (request := self.running.get((namespace, name))) is not None:
            self.running[namespace, name] = replace(request, owner_uid="")

    async def delete(self, namespace: str, name: str) -> None:
        if self.fail is not None:
            raise self.fail
        self.deleted.append((namespace, name))
        self.running.pop((namespace, name), None)


@dataclass
class MemoryHints:
    """Hints in memory: what was announced, and the routers a test puts there."""

    announced: list[int] = field(default_factory=list)
    alive: dict[str, RouterStatus] = field(default_factory=dict)
    schemas: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    listening: float = 0.0
    """Seconds until :attr:`alive` are all."""

    def unheard(self) -> float:
        return self.listening

    def config_schema(self, subject: str) -> Mapping[str, Any] | None:
        return self.schemas.get(subject)

    async def changed(self, revision: int) -> None:
        self.announced.append(revision)

    def routers(self) -> Sequence[RouterStatus]:
        return list(self.alive.values())

    def report(self, instance: str, revision: int, **fields: Any) -> RouterStatus:
        """A router reports; also what the controller is to be given."""
        status = RouterStatus(
            instance=instance, revision=revision, started_at="2030-01-01T00:00:00Z", **fields
        )
        self.alive[instance] = status
        return status
