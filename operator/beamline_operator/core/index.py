"""Who claims which id and subject, and who refers to whom: the two questions that span objects.

The index is brought up to date key by key, at the start of each reconcile of that key, and as a whole when
the stored objects were listed afresh. It may lag behind the store for a moment; the reconcile of the object
that changed closes the gap, because :meth:`ObjectIndex.update` names everyone whose verdict may have changed
with it.

The older object wins a claim, then the first by namespace and name: the order never depends on who was seen
first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from beamline_contract.extension import ExtensionRef
from beamline_contract.names import object_id
from beamline_contract.objects import BrokenObject, Extension, Kind, ObjectKey, RoutingPolicy
from beamline_contract.projection import references

from .ports import StoredObject
from .versions import base_of, standing
from .view import Rival

Claim: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What others can see of one object. A difference between two entries is what others must hear of."""

    created_at: str
    uid: str
    claims: tuple[Claim, ...]
    facts: tuple[object, ...]
    refers_to: frozenset[ObjectKey]
    base: ObjectKey | None = None
    """What a version is a version of: the whole family shares the traffic."""


class ObjectIndex:
    """Claims and references of all objects."""

    def __init__(self) -> None:
        self._entries: dict[ObjectKey, _Entry] = {}
        self._claimants: dict[Claim, set[ObjectKey]] = {}
        self._referrers: dict[str, set[ObjectKey]] = {}
        """By the name referred to, whatever the namespace: a missing target may have a namesake elsewhere."""

    def update(self, key: ObjectKey, stored: StoredObject | None) -> set[ObjectKey]:
        """Takes in the present state of ``key``. Returns the other keys that must be reconciled because of
        it.
        """
        before = self._entries.get(key)
        after = _entry(stored) if stored is not None else None
        if before == after:
            return set()
        affected = set(self._neighbours(key, before))
        self._unlink(key, before)
        if after is not None:
            self._entries[key] = after
            for claim in after.claims:
                self._claimants.setdefault(claim, set()).add(key)
            for target in after.refers_to:
                self._referrers.setdefault(target.name, set()).add(key)
        affected |= set(self._neighbours(key, after))
        return affected - {key}

    def rival(self, key: ObjectKey) -> Rival | None:
        """The object that holds a claim of ``key``, or None where ``key`` holds all of them."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        for what, value in entry.claims:
            holder = self._holder((what, value))
            if holder is not None and holder != key:
                return Rival(holder, what.rpartition(" ")[2], value)
        return None

    def holder_of_id(self, kind: Kind, identifier: str) -> ObjectKey | None:
        """The object that holds an id."""
        return self._holder((f"{kind} id", identifier))

    def referrers(self, target: ObjectKey) -> set[ObjectKey]:
        """The objects that refer to ``target``."""
        candidates = self._referrers.get(target.name, ())
        return {key for key in candidates if target in self._entries[key].refers_to}

    def keys(self) -> set[ObjectKey]:
        """Every key that the index knows."""
        return set(self._entries)

    def _holder(self, claim: Claim) -> ObjectKey | None:
        return min(self._claimants.get(claim, ()), key=self._seniority, default=None)

    def _seniority(self, key: ObjectKey) -> tuple[str, str, str]:
        return (self._entries[key].created_at, key.namespace, key.name)

    def _neighbours(self, key: ObjectKey, entry: _Entry | None) -> Iterator[ObjectKey]:
        if entry is None:
            return
        for claim in entry.claims:
            for rival in self._claimants.get(claim, ()):
                yield rival
                if rival.kind == "Extension":
                    yield from self._referrers.get(rival.name, ())
        if key.kind == "Extension":
            yield from self._referrers.get(key.name, ())
        if entry.base is not None:
            yield entry.base
            yield from self.referrers(entry.base)

    def _unlink(self, key: ObjectKey, entry: _Entry | None) -> None:
        if entry is None:
            return
        del self._entries[key]
        for claim in entry.claims:
            self._claimants[claim].discard(key)
            if not self._claimants[claim]:
                del self._claimants[claim]
        for name in {target.name for target in entry.refers_to}:
            self._referrers[name].discard(key)
            if not self._referrers[name]:
                del self._referrers[name]


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


def _shown(status: Mapping[str, Any]) -> tuple[object, ...]:
    """What a referrer's status repeats of this one."""
    ready: Mapping[str, Any] = next(
        (item for item in status.get("conditions") or () if item.get("type") == "Ready"), {}
    )
    unready = ready.get("reason") if ready.get("status") == "False" else None
    return (unready, status.get("breaker", "closed"))


def _share(version: Extension) -> tuple[object, ...]:
    """What the rest of its family divides the traffic by."""
    canary = None if version.spec.canary is None else standing(version)
    stands = None if canary is None else (canary.state, canary.weight, canary.since)
    return (version.spec.weight, version.spec.suspend, stands)


def _entry(stored: StoredObject) -> _Entry:
    meta = stored.metadata
    claims: list[Claim] = [(f"{stored.kind} id", object_id(meta.name))]
    facts: tuple[object, ...] = (meta.generation, isinstance(stored, BrokenObject), meta.deleting)
    if isinstance(stored, Extension):
        claims.append(("subject", stored.subject))
        spec = stored.spec
        facts = (
            spec.type,
            spec.enabled,
            spec.allowed_namespaces,
            spec.version_of,
            meta.deleting,
            _shown(stored.status),
            *_share(stored),
        )
    elif isinstance(stored, RoutingPolicy):
        facts = (meta.deleting,)
    refers_to = frozenset(target_of(stored, ref) for _, ref, _ in refs_of(stored))
    base = None
    if isinstance(stored, Extension) and stored.spec.version_of is not None:
        base = base_of(stored)
    return _Entry(meta.created_at, meta.uid, tuple(claims), facts, refers_to, base)
