"""What is known about one object when it is decided upon. Everything is frozen and read before the first
decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from beamline_contract.conditions import ConditionType, Reason
from beamline_contract.names import FINALIZER, GROUP
from beamline_contract.objects import BrokenObject, Extension, Kind, ObjectKey, RoutingPolicy
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_contract.references import Reference, Rival
from beamline_contract.reports import Notice, RouterStatus
from beamline_registry.port import WriteResult
from beamline_sdk.deployment.port import DeploymentRequest, DeploymentStatus

from .canary import CanaryStatus
from .health import ExtensionHealth
from .overrides import Override
from .ports import StoredObject
from .rollback import LastGood, RolledBack

RECONCILE_AT: Final = f"{GROUP}/reconcile-at"
"""Annotation on an object: a value that was not there before forces a pass."""
MAX_ANNOTATION: Final = 256

Record: TypeAlias = ExtensionRecord | PolicyRecord


@dataclass(frozen=True, slots=True)
class Row:
    """What this process knows the registry to hold for an object: the record, and its revision."""

    record: Record
    revision: int
    since: float = 0.0
    """Monotonic seconds at which this process learnt it."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """What has been tried in this pass and how it went; empty at its start."""

    write: WriteResult | None = None
    evicted: bool = False
    """The row of an earlier object with the same name was removed first."""
    registry_fault: str | None = None
    """Why the registry did not take the write, although it may take the same one later."""
    registry_answered: bool = False
    """That is its own word: somebody has to change something there."""
    registry_refusal: str | None = None
    """The registry can't hold the record, whenever it is asked."""
    deployed: str | None = None
    """Hash of the workload that was applied."""
    deploy_fault: str | None = None
    workload_unread: bool = False
    """The world did not say how the workload is; it is not asked again in this pass."""
    deploy_retryable: bool = True
    deploy_conflict: bool = False
    """Something that somebody else made stands where the workload should."""
    undeployed: bool = False
    released: bool = False
    """The workload was left without an owner, on purpose."""
    noted: bool = False
    """What somebody did to the object is in the audit log."""
    finalizer: bool | None = None
    """Whether our finalizer was put on (True) or taken off (False)."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything a decision may rest on."""

    object: StoredObject
    now: datetime
    record: Record | None
    """The row that this generation asks for; None for a broken object."""
    row: Row | None
    """The row as last written by this process."""
    rival: Rival | None = None
    references: tuple[Reference, ...] = ()
    desired: DeploymentRequest | None = None
    workload: DeploymentStatus | None = None
    routers: tuple[RouterStatus, ...] = ()
    attempts: Attempts = Attempts()
    allowed_images: tuple[str, ...] = ()
    health: ExtensionHealth | None = None
    """What routers say; None where nothing was heard since this process started."""
    canary: CanaryStatus | None = None
    """What is remembered of its canary next; None without one."""
    good: LastGood | None = None
    """The last revision of the workload that was ready."""
    rollback: RolledBack | None = None
    """The revision that failed, where ``desired`` is the last good one in its place."""
    holders: Mapping[str, ObjectKey] = field(default_factory=dict)
    """The objects behind the ids that routers name in their remarks."""
    config_schema: Mapping[str, Any] | None = None
    """What the running extension publishes; None where none runs."""
    overrides: tuple[Override, ...] = ()
    """What a policy's steps lay over extensions whose schema is known."""
    unheard: float = 0.0
    """Seconds until ``routers`` are all that are alive: a process that has just started does not know."""
    patience: float = 0.0
    """Seconds for which routers may still be about to report the row that was written last."""

    @property
    def kind(self) -> Kind:
        return self.object.kind

    @property
    def generation(self) -> int:
        return self.object.metadata.generation

    @property
    def extension(self) -> Extension | None:
        return self.object if isinstance(self.object, Extension) else None

    @property
    def policy(self) -> RoutingPolicy | None:
        return self.object if isinstance(self.object, RoutingPolicy) else None

    @property
    def suspended(self) -> bool:
        return not isinstance(self.object, BrokenObject) and self.object.spec.suspend

    @property
    def unseen(self) -> bool:
        """Whether no operator has said anything about this object yet; what the API server lets a new one say
        by default does not count.
        """
        return not self.object.status.get("observedGeneration")

    @property
    def enabled(self) -> bool:
        return not isinstance(self.object, Extension) or self.object.spec.enabled

    @property
    def in_registry(self) -> bool:
        """Whether the registry is known to hold exactly what this generation asks for."""
        return self.row is not None and self.record is not None and self.row.record == self.record

    @property
    def forced(self) -> bool:
        """Whether somebody asks for a pass that takes nothing as known (``beamline.io/reconcile-at``)."""
        asked = self.object.metadata.annotations.get(RECONCILE_AT, "")[:MAX_ANNOTATION]
        return bool(asked) and asked != self.object.status.get("lastReconcileAt")

    @property
    def retained(self) -> bool:
        """Whether deletion leaves row and workload behind."""
        spec = self.object.spec
        stated = (
            spec.get("deletionPolicy")
            if isinstance(spec, Mapping)
            else getattr(spec, "deletion_policy", None)
        )
        return self.kind == "Extension" and stated == "Retain"

    @property
    def has_finalizer(self) -> bool:
        if self.attempts.finalizer is not None:
            return self.attempts.finalizer
        return FINALIZER in self.object.metadata.finalizers

    def notices(self, object_id: str) -> tuple[Notice, ...]:
        """What routers remark about this object, without repeats, in a stable order."""
        found = {
            (notice.reason, notice.message): notice
            for router in self.routers
            for notice in router.notices
            if notice.kind == self.kind and notice.id == object_id
        }
        return tuple(found[name] for name in sorted(found))


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict of one check: becomes a condition. ``status`` is True, False or Unknown, as Kubernetes
    spells them.
    """

    status: str
    reason: Reason
    message: str

    @property
    def holds(self) -> bool:
        return self.status == "True"


def conditions_of(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Conditions by type, as they were told last."""
    return {str(item.get("type")): item for item in status.get("conditions") or ()}


Decided: TypeAlias = Mapping[ConditionType, Finding]
"""The conditions decided so far; a check may look at those before its own."""


def yes(reason: Reason, message: str) -> Finding:
    """A condition that holds."""
    return Finding("True", reason, message)


def no(reason: Reason, message: str) -> Finding:
    """A condition that does not hold."""
    return Finding("False", reason, message)


def unknown(reason: Reason, message: str) -> Finding:
    """A condition nobody can tell yet."""
    return Finding("Unknown", reason, message)
