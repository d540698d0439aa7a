"""``workload.rollback: auto``: back to the last revision of the workload that was ready.

A *revision* is what decides how the pods are: the workload without its number of replicas and how it is
scaled, and the versions of the Secrets and ConfigMaps that it reads. The last one that was ready stands in
``status.lastGood`` in full, because nothing else remembers it in both worlds. One that failed stands in
``status.rolledBack``, before anything is applied: as long as the object asks for that very revision it is not
tried again, so nothing flaps, whoever leads. Another revision, or ``rollback: manual``, ends that.

What was ready for a moment may still be bad: a container without probes is ready until it exits. So a new
last good revision keeps the one before it for its probation, as long as its ``progressDeadlineSeconds``. One
that fails in that time gives its place back, and counts as a rollout that failed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from beamline_contract.objects import Extension
from beamline_contract.workload import Workload
from beamline_sdk.deployment.port import DeploymentRequest, DeploymentStatus, Phase

_SCALE: Final = ("replicas", "autoscaling", "disruption")
_NOT_THE_PODS: Final = frozenset(
    {*_SCALE, "rollback", "revisionHistoryLimit", "progressDeadlineSeconds", "updateStrategy"}
)
_FAILED: Final = frozenset({Phase.FAILED, Phase.CREDENTIALS_MISSING})
_STAMP: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class LastGood:
    """The last revision that was ready, and the generation that first asked for it.

    ``before`` is the one that was good before, ``since`` when this one took its place (RFC 3339); both only
    during its probation.
    """

    generation: int
    revision: str
    workload: Workload
    since: str = ""
    before: LastGood | None = None

    def to_status(self) -> dict[str, Any]:
        """As it stands in ``status.lastGood``."""
        stated: dict[str, Any] = {
            "generation": self.generation,
            "revision": self.revision,
            "image": self.workload.image[:1024],
            "workload": self.workload.to_manifest(),
        }
        if self.before is not None:
            stated |= {"since": self.since, "before": self.before.to_status()}
        return stated

    def on_probation(self, now: datetime) -> bool:
        """Whether a failure now is one of its rollout."""
        if self.before is None:
            return False
        try:
            began = datetime.strptime(self.since, _STAMP).replace(tzinfo=UTC)
        except ValueError:
            return False
        return (now - began).total_seconds() < self.workload.progress_deadline_seconds


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The revision that failed; ``message`` says how."""

    generation: int
    revision: str
    message: str

    def to_status(self) -> dict[str, Any]:
        """As it stands in ``status.rolledBack``."""
        return {"generation": self.generation, "revision": self.revision, "message": self.message[:1024]}


def revision_of(workload: Workload, inputs: str) -> str:
    """16 hex digits over what decides how the pods are."""
    document = {name: value for name, value in workload.stated().items() if name not in _NOT_THE_PODS}
    text = json.dumps([document, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def last_good(status: Mapping[str, Any]) -> LastGood | None:
    """``status.lastGood``; None where there is none, or none that this version can read."""
    return _read(status.get("lastGood"))


def _read(found: Any) -> LastGood | None:
    if not isinstance(found, Mapping):
        return None
    try:
        workload = Workload.model_validate(dict(found["workload"]), by_alias=True, by_name=False)
        generation, revision = int(found["generation"]), str(found["revision"])
    except (KeyError, TypeError, ValueError, ValidationError):
        return None
    return LastGood(generation, revision, workload, str(found.get("since", "")), _read(found.get("before")))


def rolled_back(extension: Extension, revision: str) -> RolledBack | None:
    """What stands in status about the revision that the object asks for."""
    found = extension.status.get("rolledBack")
    workload = extension.spec.workload
    if workload is None or workload.rollback != "auto" or not isinstance(found, Mapping):
        return None
    if found.get("revision") != revision:
        return None
    return RolledBack(int(found.get("generation", 0)), revision, str(found.get("message", "")))


def judged(
    extension: Extension,
    revision: str,
    asked: DeploymentRequest,
    observed: DeploymentStatus | None,
    now: datetime,
) -> tuple[RolledBack, LastGood] | None:
    """A rollout that failed just now, and what to return to; None where it did not, or there is nothing."""
    good = last_good(extension.status)
    if good is not None and good.revision == revision:
        good = good.before if good.on_probation(now) else None
    if asked.workload.rollback != "auto" or good is None:
        return None
    if observed is None or observed.hash != asked.hash or observed.phase not in _FAILED:
        return None
    failed = RolledBack(extension.metadata.generation, revision, observed.message)
    return failed, replace(good, since="", before=None)


def returned(extension: Extension, good: LastGood) -> Extension:
    """The object as it would be with the last good revision; it is scaled as it is now."""
    now = extension.spec.workload
    assert now is not None, "what has no workload never returns to one"
    scale = {name: getattr(now, name) for name in _SCALE}
    workload = good.workload.model_copy(update=scale)
    return replace(extension, spec=extension.spec.model_copy(update={"workload": workload}))


def proven(
    extension: Extension,
    revision: str,
    desired: DeploymentRequest | None,
    observed: DeploymentStatus | None,
    now: datetime,
) -> LastGood | None:
    """What ``status.lastGood`` says next."""
    known = last_good(extension.status)
    if known is not None and not known.on_probation(now):
        known = replace(known, since="", before=None)
    if desired is None or observed is None or observed.hash != desired.hash:
        return known
    if observed.phase is not Phase.READY or (known is not None and known.revision == revision):
        return known
    before = None if known is None else replace(known, since="", before=None)
    return LastGood(extension.metadata.generation, revision, desired.workload, now.strftime(_STAMP), before)


def return_to(good: LastGood | None, request: DeploymentRequest) -> LastGood | None:
    """The good revision that is another one than that of ``request``; None where there is none."""
    if good is not None and good.revision == revision_of(request.workload, request.inputs):
        return good.before
    return good
