"""What the reconcile core needs from its world; two adapters each, one for a cluster and one for a laptop.

| Port | Cluster | Laptop |
|---|---|---|
| :class:`ObjectStore` | kopf events and the Kubernetes API | YAML files of a directory |
| ``Deployments`` (:mod:`beamline_sdk.deployment.port`) | a Deployment, applied | a supervised process |
| ``RegistryWriter`` (:mod:`beamline_registry.port`) | PostgreSQL | PostgreSQL |
| :class:`Hints` | NATS | NATS |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from beamline_contract import references
from beamline_contract.conditions import EventReason
from beamline_contract.objects import Kind, ObjectKey
from beamline_contract.reports import RouterStatus

StoredObject: TypeAlias = references.StoredObject


class StoreError(Exception):
    """The store refused or does not answer. ``retryable`` is false where trying again can't help; ``soon``
    where the attempt only looked, and the next one can do it.
    """

    def __init__(self, message: str, *, retryable: bool = True, soon: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.soon = soon


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth a line in ``kubectl describe``; written on transitions only."""

    reason: EventReason
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


class ObjectStore(Protocol):
    """Objects as last seen. Reads are from memory (an informer's cache) and never block on the network."""

    def get(self, key: ObjectKey) -> StoredObject | None:
        """The object, or None where it does not exist."""
        ...

    def list(self, kind: Kind) -> Sequence[StoredObject]:
        """All objects of a kind."""
        ...

    async def write_status(self, key: ObjectKey, status: Mapping[str, Any]) -> None:
        """Replaces ``status``. An object that is gone is fine. Raises :class:`StoreError`."""
        ...

    async def set_finalizer(self, key: ObjectKey, present: bool) -> None:
        """Adds or removes our finalizer; a no-op where the store has none. Raises :class:`StoreError`."""
        ...

    async def record_event(self, key: ObjectKey, event: Event) -> None:
        """Tells people. Never raises: an event lost is no harm."""
        ...


class Inputs(Protocol):
    """Secrets and ConfigMaps that workloads read, as far as somebody asked for them to be watched."""

    def version(self, kind: str, namespace: str, name: str) -> str | None:
        """Identifies the present content; None for what is not there or not watched."""
        ...


class Hints(Protocol):
    """NATS as the operator uses it: a hint out, router reports in. Losing any of them only costs time."""

    async def changed(self, revision: int) -> None:
        """Tells every router that the registry reached ``revision``. Never raises."""
        ...

    def routers(self) -> Sequence[RouterStatus]:
        """The last report of every router that is alive."""
        ...

    def unheard(self) -> float:
        """Seconds until every router that is alive has had the time to report; 0 from then on."""
        ...

    def config_schema(self, subject: str) -> Mapping[str, Any] | None:
        """The JSON Schema that the extension on ``subject`` publishes; None where none is known."""
        ...
