"""What must hold before an object is changed: it is there, as the caller saw it, and nobody else owns it.

Each check raises :class:`.problems.ProblemError` where it does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from beamline_contract.errors import ErrorCode
from beamline_contract.model import Fault
from beamline_contract.objects import Kind, ObjectKey

from .identity import Identity, Role
from .objects.port import Held
from .problems import AdminCode, ProblemError


@dataclass(frozen=True, slots=True)
class Request:
    """How a change is asked for."""

    identity: Identity
    request_id: str
    force: bool = False
    wait_s: float | None = None
    """How long to wait for every router; None does not wait."""
    matches: int | None = None
    """The generation that the caller's ``If-Match`` names."""


def by_id(kind: Kind, identifier: str, everything: Mapping[ObjectKey, Held]) -> Held:
    """The object of a registry id; of several the oldest, which is the one that is served."""
    found = [held for key, held in everything.items() if key.kind == kind and held.id == identifier]
    if not found:
        what = "extension" if kind == "Extension" else "policy"
        raise ProblemError(
            AdminCode.NOT_FOUND,
            f"there is no object behind such {'an' if what[0] == 'e' else 'a'} {what}",
            field="id",
        )
    return min(found, key=lambda held: (str(held.metadata.get("creationTimestamp", "")), held.key))


def same_generation(held: Held, generation: int | None, how: Request) -> None:
    """The object is at the generation that the caller looked at: 412 for ``If-Match``, else 409."""
    if how.matches is not None and how.matches != held.generation:
        raise ProblemError(
            AdminCode.CONFLICT,
            f"the object is at generation {held.generation}, not {how.matches}",
            field="if-match",
            hint="read it again: somebody changed it meanwhile",
            status=412,
        )
    if generation is not None and generation != held.generation:
        raise ProblemError(
            AdminCode.CONFLICT,
            f"the object is at generation {held.generation}, not {generation}",
            field="generation",
            hint="read it again: somebody changed it meanwhile",
        )


def not_owned(held: Held, how: Request) -> None:
    """A GitOps tool that would undo the change is respected, unless an admin forces."""
    owner = held.owner
    if owner is None:
        return
    if not how.force:
        raise ProblemError(
            AdminCode.CONFLICT,
            f"{held.key} belongs to {owner}, which would undo the change",
            field="force",
            hint="change it in the repository; an admin may add force=true, until the tool syncs again",
        )
    if not how.identity.role.covers(Role.ADMIN):
        raise ProblemError(ErrorCode.PERMISSION_DENIED, "force needs the role admin", field="force")


def refuse(faults: tuple[Fault, ...]) -> None:
    """There are no faults."""
    if faults:
        raise ProblemError(
            ErrorCode.INVALID_ARGUMENT,
            "; ".join(map(str, faults))[:2000],
            field=faults[0].path,
            hint="POST .../validate tells every fault without writing",
        )
