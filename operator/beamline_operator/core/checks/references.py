"""ResolvedRefs: does every reference lead to an Extension that this object may use, of the right type?

Faults differ in weight. A target that is missing, broken or disabled leaves a policy that routers can serve:
the step answers NOT_FOUND and its failureMode decides, so the policy is synced. A target that did not agree,
or no longer does, is served the same way: the projection names it as denied, and routers treat it as absent.
So taking a namespace off ``allowedNamespaces`` takes the access away at once, whatever generation the policy
has. A target of the wrong type keeps the generation out of the registry (:data:`BLOCKING`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from beamline_contract.conditions import Reason
from beamline_contract.objects import BrokenObject, Extension

from ..view import Decided, Finding, Reference, View, no, yes

BLOCKING: Final = frozenset({Reason.REF_WRONG_TYPE})


def permission_fault(home: str, ref: Reference) -> str | None:
    """Another namespace's Extension must list this namespace. An id alone never crosses namespaces."""
    if ref.target is not None and ref.rival is not None and ref.rival.claim == "id":
        return f"{_name(home, ref)} is not served, its id belongs to {ref.rival.key}; rename one."
    if ref.target is None and ref.namesake is not None and ref.namesake != ref.target_key:
        return (
            f"{_nothing_there(ref)}; the one in namespace {ref.namesake.namespace} needs to be named with "
            f"its namespace and to list {home} in spec.allowedNamespaces."
        )
    target = ref.target
    if target is None or target.metadata.namespace == home:
        return None
    if isinstance(target, BrokenObject):
        allowed = target.spec.get("allowedNamespaces") or ()
    else:
        allowed = target.spec.allowed_namespaces if isinstance(target, Extension) else ()
    return None if home in allowed else f"{_name(home, ref)} does not list {home} in spec.allowedNamespaces."


def _type_fault(home: str, ref: Reference) -> str | None:
    if isinstance(ref.target, Extension) and ref.target.spec.type != ref.wanted:
        return f"{_name(home, ref)} is of type {ref.target.spec.type}, the step needs {ref.wanted}."
    return None


def _chain_fault(home: str, ref: Reference) -> str | None:
    """Versions stand side by side under one Extension, never in a chain."""
    target = ref.target
    if ref.path == "spec.versionOf" and isinstance(target, Extension) and target.spec.version_of is not None:
        return f"{_name(home, ref)} is itself a version of {target.spec.version_of}; name that one."
    return None


def _existence_fault(_: str, ref: Reference) -> str | None:
    if ref.target is None or ref.target.metadata.deleting:
        return f"{_nothing_there(ref)}; create it."
    return None


def _acceptance_fault(home: str, ref: Reference) -> str | None:
    if ref.rival is not None:
        return f"{_name(home, ref)} is not accepted: its {ref.rival.claim} belongs to {ref.rival.key}."
    if isinstance(ref.target, BrokenObject):
        return f"{_name(home, ref)} is not accepted; see its conditions."
    return None


def _enablement_fault(home: str, ref: Reference) -> str | None:
    if isinstance(ref.target, Extension) and not ref.target.spec.enabled:
        return f"{_name(home, ref)} has spec.enabled false; the step fails by its failureMode."
    return None


FAULTS: Final[tuple[tuple[Reason, Callable[[str, Reference], str | None]], ...]] = (
    (Reason.REF_NOT_PERMITTED, permission_fault),
    (Reason.REF_WRONG_TYPE, _type_fault),
    (Reason.REF_WRONG_TYPE, _chain_fault),
    (Reason.REF_NOT_FOUND, _existence_fault),
    (Reason.REF_NOT_ACCEPTED, _acceptance_fault),
    (Reason.REF_DISABLED, _enablement_fault),
)
"""What can be wrong with one reference, the gravest first."""


def fault_of(home: str, ref: Reference) -> tuple[Reason, str] | None:
    """The gravest fault of one reference of an object in namespace ``home``."""
    for reason, look in FAULTS:
        sentence = look(home, ref)
        if sentence is not None:
            return reason, sentence
    return None


def lead_somewhere(view: View, _: Decided) -> Finding | None:
    """All references with the gravest fault that there is, each with its path."""
    home = view.object.metadata.namespace
    for reason, look in FAULTS:
        faults = [f"{ref.path}: {fault}" for ref in view.references if (fault := look(home, ref))]
        if faults:
            return no(reason, " ".join(faults))
    return None


def resolved(view: View, _: Decided) -> Finding:
    """Nothing speaks against it."""
    count = len(view.references)
    if not count:
        return yes(Reason.RESOLVED, "The object refers to nothing.")
    return yes(
        Reason.RESOLVED,
        f"{'Its reference leads' if count == 1 else f'All {count} references lead'} to an Extension.",
    )


def _nothing_there(ref: Reference) -> str:
    return f"there is no Extension {ref.target_key.name} in namespace {ref.target_key.namespace}"


def _name(home: str, ref: Reference) -> str:
    key = ref.target_key
    return f"Extension {key.name}" if key.namespace == home else str(key)


CHECKS: Final = (lead_somewhere, resolved)
