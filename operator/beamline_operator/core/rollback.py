"""``workload.rollback: auto``: back to the last revision of the workload that was ready.

A *revision* is what decides how the pods are: the workload without its number of replicas and how it is
scaled, and the versions of the Secrets and ConfigMaps that it reads. The last one that was ready stands in
``status.lastGood`` in full, because nothing else remembers it in both worlds. One that failed stands in
``status.rolledBack``, before anything is applied: as long as the object asks for that very revision it is not
tried again, so nothing flaps, whoever leads. Another revision, or ``rollback: manual``, ends that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class LastGood:
    """The last revision that was ready, and the generation that first asked for it."""

    generation: int
    revision: str
    workload: Workload

    def to_status(self) -> dict[str, Any]:
        """As it stands in ``status.lastGood``."""
        return {
            "generation": self.generation,
            "revision": self.revision,
            "image": self.workload.image[:1024],
            "workload": self.workload.to_manifest(),
        }


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
    document = {name: value for name, value in workload.to_manifest().items() if name not in _NOT_THE_PODS}
    text = json.dumps([document, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def last_good(status: Mapping[str, Any]) -> LastGood | None:
    """``status.lastGood``; None where there is none, or none that this version can read."""
    found = status.get("lastGood")
    if not isinstance(found, Mapping):
        return None
    try:
        workload = Workload.model_validate(dict(found["workload"]), by_alias=True, by_name=False)
        return LastGood(int(found["generation"]), str(found["revision"]), workload)
    except (KeyError, TypeError, ValueError, ValidationError):
        return None


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
    extension: Extension, revision: str, asked: DeploymentRequest, observed: DeploymentStatus | None
) -> RolledBack | None:
    """A rollout that failed just now and has something to return to."""
    good = last_good(extension.status)
    if asked.workload.rollback != "auto" or good is None or good.revision == revision:
        return None
    if observed is None or observed.hash != asked.hash or observed.phase not in _FAILED:
        return None
    return RolledBack(extension.metadata.generation, revision, observed.message)


def returned(extension: Extension, good: LastGood) -> Extension:
    """The object as it would be with the last good revision; it is scaled as it is now."""
    now = extension.spec.workload
    assert now is not None, "what has no workload never returns to one"
    scale = {name: getattr(now, name) for name in _SCALE}
    workload = good.workload.model_copy(update=scale)
    return replace(extension, spec=extension.spec.model_copy(update={"workload": workload}))


def proven(
    extension: Extension, revision: str, desired: DeploymentRequest | None, observed: DeploymentStatus | None
) -> LastGood | None:
    """What ``status.lastGood`` says next."""
    known = last_good(extension.status)
    if desired is None or observed is None or observed.hash != desired.hash:
        return known
    if observed.phase is not Phase.READY or (known is not None and known.revision == revision):
        return known
    return LastGood(extension.metadata.generation, revision, desired.workload)
