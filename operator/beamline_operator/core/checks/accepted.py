"""Accepted: is the object valid in itself, and does it hold what it claims?"""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import Reason
from beamline_contract.objects import BrokenObject
from beamline_registry.port import Outcome

from ..config_schema import config_faults, schema_fault
from ..images import is_allowed
from ..view import Decided, Finding, View, no, yes


def obeys_its_rules(view: View, _: Decided) -> Finding | None:
    """A broken object names every fault with its path."""
    if not isinstance(view.object, BrokenObject):
        return None
    faults = "; ".join(map(str, view.object.faults))
    return no(
        Reason.INVALID,
        f"{faults}. Correct the object; until then the last accepted generation, if any, keeps serving.",
    )


def image_is_allowed(view: View, _: Decided) -> Finding | None:
    """Only images that the operator's configuration allows."""
    extension = view.extension
    if extension is None or extension.spec.workload is None or not view.allowed_images:
        return None
    image = extension.spec.workload.image
    if is_allowed(image, view.allowed_images):
        return None
    return no(
        Reason.INVALID,
        f"spec.workload.image: {image!r} is not allowed here; allowed are images of "
        f"{', '.join(view.allowed_images)}.",
    )


def config_obeys_its_own_schema(view: View, _: Decided) -> Finding | None:
    """An object that states spec.configSchema contradicts itself where its config breaks it."""
    extension = view.extension
    if extension is None or extension.spec.config_schema is None:
        return None
    fault = schema_fault(extension.spec.config_schema)
    if fault is not None:
        return no(Reason.INVALID, f"spec.configSchema: {fault}. Correct the schema, or leave it out.")
    faults = config_faults(extension.spec.config_schema, extension.spec.config)
    if not faults:
        return None
    return no(
        Reason.INVALID,
        f"{'; '.join(faults)} (spec.configSchema). Correct the object; until then the last accepted "
        "generation, if any, keeps serving.",
    )


def holds_its_claims(view: View, _: Decided) -> Finding | None:
    """Of two objects with the same id or subject the older one is served."""
    rival = view.rival
    if rival is None:
        return None
    path = "metadata.name" if rival.claim == "id" else "spec.subject"
    change = "the name of one of them" if rival.claim == "id" else "spec.subject of one of them"
    return no(
        Reason.CONFLICTED,
        f"{path}: the {rival.claim} {rival.value} belongs to {rival.key}, which is older. "
        f"Change {change}, or delete the older one.",
    )


def is_not_refused_by_the_registry(view: View, _: Decided) -> Finding | None:
    """The registry has the last word on ids and subjects: it also knows rows whose object is retained."""
    result = view.attempts.write
    if result is None or result.outcome is not Outcome.CONFLICT or _is_its_own(view, result.holder):
        return None
    return no(
        Reason.CONFLICTED,
        f"metadata.name, spec.subject: a row of {result.holder or 'another object'} has the "
        "same id or subject. Rename this object, or remove that one.",
    )


def _is_its_own(view: View, holder: str | None) -> bool:
    """The row of an earlier object with this very name: it is evicted, not fought."""
    key = view.object.key
    return holder == f"{key.namespace}/{key.name}" and not view.attempts.evicted


def accepted(_: View, __: Decided) -> Finding:
    """Nothing speaks against it."""
    return yes(Reason.ACCEPTED, "The object is valid and has no rival.")


CHECKS: Final = (
    obeys_its_rules,
    image_is_allowed,
    config_obeys_its_own_schema,
    holds_its_claims,
    is_not_refused_by_the_registry,
    accepted,
)
