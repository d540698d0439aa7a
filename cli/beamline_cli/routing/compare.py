"""Two tables side by side: objects, policies, requests, and what authors should know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamline_contract.objects import ObjectKey
from beamline_contract.references import StoredObject

from .classes import Rerouted, rerouted
from .table import Table, spec_of
from .told import Change, changes, differences, told


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One object: ``change`` is created, removed or changed; ``fields`` of its spec are different."""

    key: ObjectKey
    change: str
    fields: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One policy of the table: ``change`` is appears, vanishes or changes."""

    policy: str
    change: str
    details: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutingDiff:
    """Everything that is different. ``whole`` False: there were too many classes of requests to ask for
    each.
    """

    objects: tuple[ObjectChange, ...]
    policies: tuple[PolicyChange, ...]
    requests: tuple[Rerouted, ...]
    new: tuple[tuple[str, str], ...]
    gone: tuple[tuple[str, str], ...]
    whole: bool = True

    @property
    def routing(self) -> bool:
        """Whether requests will be treated otherwise than now."""
        return bool(self.policies or self.requests)

    def __bool__(self) -> bool:
        return bool(self.objects or self.routing or self.new or self.gone)


def compare(before: Table, after: Table) -> RoutingDiff:
    """What changes from one to the other."""
    requests, whole = rerouted(before.snapshot.matcher, after.snapshot.matcher)
    said_before, said_after = _said(before), _said(after)
    return RoutingDiff(
        objects=tuple(_objects(before.objects, after.objects)),
        policies=tuple(_policies(before, after)),
        requests=tuple(requests),
        new=tuple(sorted(said_after - said_before)),
        gone=tuple(sorted(said_before - said_after)),
        whole=whole,
    )


def _objects(
    before: Mapping[ObjectKey, StoredObject], after: Mapping[ObjectKey, StoredObject]
) -> list[ObjectChange]:
    found = []
    for key in sorted({*before, *after}):
        if key not in before:
            found.append(ObjectChange(key, "created"))
        elif key not in after:
            found.append(ObjectChange(key, "removed"))
        else:
            fields = tuple(differences("spec", spec_of(before[key]), spec_of(after[key])))
            if fields:
                found.append(ObjectChange(key, "changed", fields))
    return found


def _policies(before: Table, after: Table) -> list[PolicyChange]:
    old, new = before.snapshot.compiled_policies, after.snapshot.compiled_policies
    found = []
    for name in sorted({*old, *new}):
        if name not in old:
            found.append(PolicyChange(name, "appears", _whole(told(after.snapshot, name))))
        elif name not in new:
            found.append(PolicyChange(name, "vanishes"))
        else:
            details = tuple(changes(told(before.snapshot, name), told(after.snapshot, name)))
            if details:
                found.append(PolicyChange(name, "changes", details))
    return found


def _whole(policy: Mapping[str, Any]) -> tuple[Change, ...]:
    """A new policy in a line for each thing that it has."""
    stated = {name: value for name, value in policy["match"].items() if value not in ([], {}, None, 100)}
    found = [Change(f"match.{name}", None, value) for name, value in stated.items()]
    for step in policy["steps"]:
        if step["action"] == "select_provider":
            names = [call["extension_id"] for call in step["providers"]]
            found.append(Change("step select_provider", None, names))
        else:
            word = str(step["action"]).removeprefix("extension_")
            found.append(Change(f"step {word} {step['extension_id']}", None, "there"))
    return tuple(found)


def _said(table: Table) -> set[tuple[str, str]]:
    noticed = {(f"{one.kind} {one.id}", f"{one.reason}: {one.message}") for one in table.notices}
    return noticed | set(table.problems)
