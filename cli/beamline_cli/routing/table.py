"""The table that routers would have of a set of objects, made by the code that makes theirs.

What only the operator decides is decided here as it does: an object that lost its id or subject to an older
one is left out, and a reference that its target does not permit is denied. An object that is suspended keeps
what it was. Weights of versions are those of the specs: the steps of a canary on versions are not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from beamline_contract.names import object_id
from beamline_contract.objects import BrokenObject, Extension, ObjectKey, RoutingPolicy
from beamline_contract.projection import ExtensionRecord, PolicyRecord, extension_record, policy_record
from beamline_contract.references import (
    StoredObject,
    gravest,
    permission_fault,
    references_of,
    rivals,
)
from beamline_contract.reports import Notice
from beamline_router.core.snapshot import Snapshot, compile_snapshot

YOUNGEST: Final = "9999-12-31T00:00:00Z"
"""The creation time of what does not exist yet: it loses every claim and every tie to what does."""


@dataclass(frozen=True, slots=True)
class Table:
    """A compiled table, and what its authors should know. ``problems`` are sentences by object."""

    snapshot: Snapshot
    problems: frozenset[tuple[str, str]]
    notices: tuple[Notice, ...]
    objects: Mapping[ObjectKey, StoredObject]


def table_of(objects: Mapping[ObjectKey, StoredObject], before: Table | None = None) -> Table:
    """Compiles ``objects``. Suspended ones are as they were in ``before``."""
    problems: set[tuple[str, str]] = set()
    standing = {key: _standing(key, stored, before) for key, stored in objects.items()}
    lost = rivals(standing)
    extensions: list[ExtensionRecord] = []
    policies: list[PolicyRecord] = []
    for key, stored in standing.items():
        if isinstance(stored, BrokenObject):
            problems.update((str(key), str(fault)) for fault in stored.faults)
            continue
        if stored.metadata.deleting:
            continue
        if (rival := lost.get(key)) is not None:
            problems.add(
                (str(key), f"its {rival.claim} {rival.value} belongs to {rival.key}: it is not served")
            )
            continue
        references = references_of(stored, standing)
        worst = gravest(key.namespace, references)
        if worst is not None:
            problems.update((str(key), f"{path}: {sentence}") for path, sentence in worst[1])
        denied = {object_id(one.ref.name) for one in references if permission_fault(key.namespace, one)}
        if isinstance(stored, Extension):
            extensions.append(_placed(extension_record(stored, denied)))
        else:
            policies.append(_placed(policy_record(stored, denied)))
    done = compile_snapshot(extensions, policies, revision=1, previous=None)
    problems.update((f"{one.kind} {one.id}", f"{one.field}: {one.reason}") for one in done.refused)
    return Table(done.snapshot, frozenset(problems), done.notices, objects)


def spec_of(stored: StoredObject) -> Mapping[str, Any]:
    """The spec with its defaults, as the API server would store it; as written where it is broken."""
    if isinstance(stored, BrokenObject):
        return stored.spec
    return stored.spec.to_manifest()


def _standing(key: ObjectKey, stored: StoredObject, before: Table | None) -> StoredObject:
    if isinstance(stored, Extension | RoutingPolicy) and stored.spec.suspend and before is not None:
        return before.objects.get(key, stored)
    return stored


def _placed(record: Any) -> Any:
    """A record that compiles, also of an object that does not exist yet."""
    return replace(record, uid=record.uid or record.id, created_at=record.created_at or YOUNGEST)
