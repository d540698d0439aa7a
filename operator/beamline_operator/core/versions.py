"""A base and its versions, as far as a canary is concerned: who is in the family, who goes first, and what
weight each row gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from beamline_contract.conditions import ConditionType
from beamline_contract.objects import Extension, ObjectKey
from beamline_contract.projection import ExtensionRecord
from beamline_sdk.deployment.port import DeploymentRequest, DeploymentStatus, Phase

from .canary import OVER, CanaryStatus, State, divided, remembered, revision_of
from .checks.references import BLOCKING
from .ports import StoredObject
from .view import conditions_of

_HOPELESS = frozenset({Phase.FAILED, Phase.CREDENTIALS_MISSING, Phase.NOT_RUNNABLE})


@dataclass(frozen=True, slots=True)
class Family:
    """A base and its versions that take part: enabled, and not on their way out."""

    base: Extension | None
    versions: tuple[Extension, ...] = ()

    @property
    def canaries(self) -> tuple[Extension, ...]:
        """The versions with a canary, the oldest first."""
        found = [version for version in self.versions if version.spec.canary is not None]
        return tuple(sorted(found, key=_seniority))


def base_of(extension: Extension) -> ObjectKey:
    """The key of the base: what it is a version of, else itself."""
    return ObjectKey(
        "Extension", extension.metadata.namespace, extension.spec.version_of or extension.metadata.name
    )


def family_of(
    extension: Extension,
    get: Callable[[ObjectKey], StoredObject | None],
    referrers: Iterable[ObjectKey],
) -> Family:
    """The family of ``extension``; ``referrers`` are the keys that refer to its base."""
    base = get(base_of(extension))
    name = base_of(extension).name
    found = [get(key) for key in referrers if key.kind == "Extension"]
    versions = [
        one
        for one in found
        if isinstance(one, Extension) and one.spec.version_of == name and _takes_part(one)
    ]
    return Family(
        base if isinstance(base, Extension) and not base.metadata.deleting else None,
        tuple(sorted(versions, key=_seniority)),
    )


def standing(version: Extension) -> CanaryStatus:
    """What is remembered of a version's canary; nothing counts that was said of another spec, unless that is
    still the one that is served.
    """
    revision = revision_of(version.spec)
    known = remembered(version.status)
    if known is None:
        return CanaryStatus(revision=revision)
    return known if known.revision == revision or _held_back(version) else CanaryStatus(revision=revision)


def _held_back(version: Extension) -> bool:
    """Whether its status says that its present generation is not accepted."""
    told = conditions_of(version.status)
    accepted, refs = told.get(ConditionType.ACCEPTED, {}), told.get(ConditionType.RESOLVED_REFS, {})
    return any(
        one.get("status") == "False" and one.get("observedGeneration") == version.metadata.generation
        for one in (accepted, refs if refs.get("reason") in BLOCKING else {})
    )


def weigh(
    record: ExtensionRecord, extension: Extension, family: Family, canary: CanaryStatus | None
) -> ExtensionRecord:
    """The row with the weight that the family's canaries leave to it. ``canary`` is the extension's own."""
    if not family.canaries or family.base is None:
        return record
    states = {
        one.metadata.name: canary if one.key == extension.key and canary is not None else standing(one)
        for one in family.canaries
    }
    plain = [one for one in family.versions if one.metadata.name not in states]
    order = sorted(family.canaries, key=lambda one: _order(states[one.metadata.name], one))
    members: list[tuple[str, int, CanaryStatus | None]] = [
        (one.id, one.spec.weight, None) for one in (family.base, *plain)
    ]
    members += [(one.id, 0, states[one.metadata.name]) for one in order]
    weight = divided(members).get(record.id)
    if weight is None or weight == record.weight:
        return record
    return replace(record, weight=weight, spec={**record.spec, "weight": weight})


def blocked_by(
    extension: Extension,
    family: Family,
    desired: DeploymentRequest | None,
    observed: DeploymentStatus | None,
) -> str | None:
    """Why the canary of ``extension`` can't begin or go on now; None where nothing is in its way."""
    if not extension.spec.enabled:
        return "spec.enabled is false."
    base = family.base
    if base is None:
        return f"spec.versionOf: there is no Extension {extension.spec.version_of}; create it."
    if base.spec.suspend or not base.spec.enabled:
        field = "suspend is true" if base.spec.suspend else "enabled is false"
        return f"spec.versionOf: of Extension {base.metadata.name} spec.{field}."
    for other in family.canaries:
        state = standing(other).state
        first = _seniority(other) < _seniority(extension)
        if other.key != extension.key and state not in OVER and (first or state is not State.WAITING):
            return (
                f"Extension {other.metadata.name} is the canary of {base.metadata.name} now; one at a time."
            )
    if desired is not None and not (
        observed is not None and observed.hash == desired.hash and observed.phase is Phase.READY
    ):
        return "its workload is not ready; see the condition WorkloadReady."
    return None


def failed_because(desired: DeploymentRequest | None, observed: DeploymentStatus | None) -> str | None:
    """What makes the canary hopeless: its workload does not run. None where it does, or may."""
    if desired is None or observed is None or observed.hash != desired.hash:
        return None
    return f"its workload failed: {observed.message}" if observed.phase in _HOPELESS else None


def _takes_part(version: Extension) -> bool:
    return version.spec.enabled and not version.metadata.deleting


def _seniority(extension: Extension) -> tuple[str, str]:
    return (extension.metadata.created_at, extension.metadata.name)


def _order(state: CanaryStatus, version: Extension) -> tuple[bool, str, str, str]:
    """Promoted ones first, the latest last: it has everything; then whoever is under way."""
    promoted = state.state is State.PROMOTED
    return (not promoted, state.since if promoted else "", *_seniority(version))
