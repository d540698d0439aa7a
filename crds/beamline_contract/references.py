"""What objects claim and what they refer to: the rules that span objects, as pure functions.

The operator's reconcile core decides with them, and the admin API's dry run asks the same before anything is
written. An id and a subject belong to one object: the older one wins a claim, then the first by namespace and
name, so the order never depends on who was seen first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from .conditions import Reason
from .extension import ExtensionRef
from .names import object_id
from .objects import BrokenObject, Extension, ObjectKey, RoutingPolicy
from .projection import references

StoredObject: TypeAlias = Extension | RoutingPolicy | BrokenObject
Claim: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rival:
    """An older object that claims the same thing: ``claim`` is ``id`` or ``subject``, ``value`` the disputed
    one.
    """

    key: ObjectKey
    claim: str
    value: str


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference of an object and where it leads.

    ``rival`` is the object that holds the target's claim where the target itself lost it; ``namesake`` is the
    object of another namespace that has the referenced id where the target does not exist.
    """

    path: str
    ref: ExtensionRef
    wanted: str
    target_key: ObjectKey
    target: StoredObject | None
    rival: Rival | None = None
    namesake: ObjectKey | None = None


def refs_of(stored: StoredObject) -> list[tuple[str, ExtensionRef, str]]:
    """Every reference of an object: (field path, reference, wanted extension type)."""
    if isinstance(stored, RoutingPolicy):
        return references(stored)
    if not isinstance(stored, Extension):
        return []
    spec = stored.spec
    found: list[tuple[str, ExtensionRef, str]] = []
    if spec.fallback_ref is not None:
        found.append(("spec.fallbackRef", spec.fallback_ref, spec.type))
    if spec.version_of is not None:
        found.append(("spec.versionOf", ExtensionRef(name=spec.version_of), spec.type))
    return found


def target_of(stored: StoredObject, ref: ExtensionRef) -> ObjectKey:
    """The key that a reference leads to."""
    return ObjectKey("Extension", ref.namespace or stored.metadata.namespace, ref.name)


def claims_of(stored: StoredObject) -> tuple[Claim, ...]:
    """What an object claims for itself: its id, and an Extension its subject."""
    own: Claim = (f"{stored.kind} id", object_id(stored.metadata.name))
    return (own, ("subject", stored.subject)) if isinstance(stored, Extension) else (own,)


def rivals(objects: Mapping[ObjectKey, StoredObject]) -> dict[ObjectKey, Rival]:
    """Every object that lost a claim, with the object that holds it."""
    holders: dict[Claim, StoredObject] = {}
    for stored in sorted(objects.values(), key=_seniority):
        for claim in claims_of(stored):
            holders.setdefault(claim, stored)
    lost: dict[ObjectKey, Rival] = {}
    for key, stored in objects.items():
        for what, value in claims_of(stored):
            holder = holders[what, value].key
            if holder != key and key not in lost:
                lost[key] = Rival(holder, what.rpartition(" ")[2], value)
    return lost


def references_of(stored: StoredObject, objects: Mapping[ObjectKey, StoredObject]) -> list[Reference]:
    """Every reference of ``stored`` among ``objects``, which hold ``stored`` too."""
    lost = rivals(objects)
    ids: dict[str, StoredObject] = {}
    for other in sorted(objects.values(), key=_seniority):
        if other.kind == "Extension":
            ids.setdefault(object_id(other.metadata.name), other)
    found = []
    for path, ref, wanted in refs_of(stored):
        key = target_of(stored, ref)
        namesake = ids.get(object_id(ref.name))
        found.append(
            Reference(
                path=path,
                ref=ref,
                wanted=wanted,
                target_key=key,
                target=objects.get(key),
                rival=lost.get(key),
                namesake=namesake.key if namesake is not None else None,
            )
        )
    return found


def gravest(home: str, found: Iterable[Reference]) -> tuple[Reason, list[tuple[str, str]]] | None:
    """The gravest fault that there is, with (path, sentence) of every reference that has it."""
    listed = list(found)
    for reason, look in FAULTS:
        faults = [(ref.path, fault) for ref in listed if (fault := look(home, ref))]
        if faults:
            return reason, faults
    return None


def _seniority(stored: StoredObject) -> tuple[str, str, str]:
    """The claimant that sorts first is served; one without a creation time is the youngest."""
    meta = stored.metadata
    return (meta.created_at or "9999", meta.namespace, meta.name)


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


def _nothing_there(ref: Reference) -> str:
    return f"there is no Extension {ref.target_key.name} in namespace {ref.target_key.namespace}"


def _name(home: str, ref: Reference) -> str:
    key = ref.target_key
    return f"Extension {key.name}" if key.namespace == home else str(key)
