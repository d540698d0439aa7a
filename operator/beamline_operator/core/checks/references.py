"""ResolvedRefs: does every reference lead to an Extension that this object may use, of the right type?

Faults differ in weight. A target that is missing, broken or disabled leaves a policy that routers can serve:
the step answers NOT_FOUND and its failureMode decides, so the policy is synced. A target of the wrong type,
or of a namespace that did not agree, must never be served: the generation stays out of the registry
(:data:`BLOCKING`).
"""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import Reason
from beamline_contract.objects import BrokenObject, Extension

from ..view import Decided, Finding, Reference, View, no, yes

BLOCKING: Final = frozenset({Reason.REF_WRONG_TYPE, Reason.REF_NOT_PERMITTED})


def are_permitted(view: View, _: Decided) -> Finding | None:
    """Another namespace's Extension must list this namespace. An id alone never crosses namespaces."""
    faults = [fault for ref in view.references if (fault := _permission_fault(view, ref))]
    return no(Reason.REF_NOT_PERMITTED, " ".join(faults)) if faults else None


def have_the_right_type(view: View, _: Decided) -> Finding | None:
    """A step runs extensions of one type."""
    faults = [
        f"{ref.path}: {_name(view, ref)} is of type {ref.target.spec.type}, the step needs {ref.wanted}."
        for ref in view.references
        if isinstance(ref.target, Extension) and ref.target.spec.type != ref.wanted
    ]
    return no(Reason.REF_WRONG_TYPE, " ".join(faults)) if faults else None


def have_no_version_of_a_version(view: View, _: Decided) -> Finding | None:
    """Versions stand side by side under one Extension, never in a chain."""
    faults = [
        f"{ref.path}: {_name(view, ref)} is itself a version of {ref.target.spec.version_of}; name that one."
        for ref in view.references
        if ref.path == "spec.versionOf"
        and isinstance(ref.target, Extension)
        and ref.target.spec.version_of is not None
    ]
    return no(Reason.REF_WRONG_TYPE, " ".join(faults)) if faults else None


def exist(view: View, _: Decided) -> Finding | None:
    """What is referred to must be there."""
    faults = [
        f"{ref.path}: {_nothing_there(ref)}; create it."
        for ref in view.references
        if ref.target is None or ref.target.metadata.deleting
    ]
    return no(Reason.REF_NOT_FOUND, " ".join(faults)) if faults else None


def are_accepted(view: View, _: Decided) -> Finding | None:
    """A target that is itself not accepted is not served, or only in an older generation."""
    faults = [
        f"{ref.path}: {_name(view, ref)} is not accepted; see its conditions."
        for ref in view.references
        if isinstance(ref.target, BrokenObject) or ref.rival is not None
    ]
    return no(Reason.REF_NOT_ACCEPTED, " ".join(faults)) if faults else None


def are_enabled(view: View, _: Decided) -> Finding | None:
    """A disabled target is in no router's table."""
    faults = [
        f"{ref.path}: {_name(view, ref)} has spec.enabled false; the step fails by its failureMode."
        for ref in view.references
        if isinstance(ref.target, Extension) and not ref.target.spec.enabled
    ]
    return no(Reason.REF_DISABLED, " ".join(faults)) if faults else None


def resolved(view: View, _: Decided) -> Finding:
    """Nothing speaks against it."""
    count = len(view.references)
    if not count:
        return yes(Reason.RESOLVED, "The object refers to nothing.")
    return yes(
        Reason.RESOLVED,
        f"{'Its reference leads' if count == 1 else f'All {count} references lead'} to an Extension.",
    )


def _permission_fault(view: View, ref: Reference) -> str | None:
    home = view.object.metadata.namespace
    if ref.target is not None and ref.rival is not None and ref.rival.claim == "id":
        return f"{ref.path}: {_name(view, ref)} is not served, its id belongs to {ref.rival.key}; rename one."
    if ref.target is None and ref.namesake is not None and ref.namesake != ref.target_key:
        return (
            f"{ref.path}: {_nothing_there(ref)}; the one in "
            f"namespace {ref.namesake.namespace} needs to be named with its namespace and to list {home} in "
            "spec.allowedNamespaces."
        )
    target = ref.target
    if target is None or target.metadata.namespace == home:
        return None
    if isinstance(target, Extension) and home in target.spec.allowed_namespaces:
        return None
    return f"{ref.path}: {_name(view, ref)} does not list {home} in spec.allowedNamespaces."


def _nothing_there(ref: Reference) -> str:
    return f"there is no Extension {ref.target_key.name} in namespace {ref.target_key.namespace}"


def _name(view: View, ref: Reference) -> str:
    key = ref.target_key
    return f"Extension {key.name}" if key.namespace == view.object.metadata.namespace else str(key)


CHECKS: Final = (
    are_permitted,
    have_the_right_type,
    have_no_version_of_a_version,
    exist,
    are_accepted,
    are_enabled,
    resolved,
)
