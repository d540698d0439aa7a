"""Synced: does the registry hold this generation?"""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import ConditionType, Reason
from beamline_registry.port import Outcome

from ..view import Decided, Finding, View, no, yes
from .references import BLOCKING


def is_acceptable(_: View, decided: Decided) -> Finding | None:
    """What is not accepted, or refers to what it must not, stays out."""
    for condition in (ConditionType.ACCEPTED, ConditionType.RESOLVED_REFS):
        finding = decided[condition]
        if finding.holds or (condition is ConditionType.RESOLVED_REFS and finding.reason not in BLOCKING):
            continue
        return no(
            Reason.NOT_SYNCED,
            f"{condition} is False ({finding.reason}), so this generation is not in the registry; "
            "the last good one, if any, keeps serving.",
        )
    return None


def is_in_the_registry(view: View, _: Decided) -> Finding | None:
    """The row is what this generation asks for."""
    return (
        yes(Reason.SYNCED, f"The registry holds generation {view.generation}.") if view.in_registry else None
    )


def registry_answers(view: View, _: Decided) -> Finding | None:
    """A registry that is down loses nothing: the object is the truth and is written later."""
    if view.attempts.registry_fault is None:
        return None
    if view.attempts.registry_answered:
        return no(
            Reason.REGISTRY_UNAVAILABLE,
            f"PostgreSQL refuses the write: {view.attempts.registry_fault}. Put that right (docs/"
            "registry-operations.md); the change is kept and tried again. Routers go on with what they have.",
        )
    return no(
        Reason.REGISTRY_UNAVAILABLE,
        "PostgreSQL does not answer, or takes no writes now; the change is kept and tried again. Routers go "
        "on with what they have.",
    )


def registry_can_hold_it(view: View, _: Decided) -> Finding | None:
    """Not everything that is JSON can be stored."""
    refusal = view.attempts.registry_refusal
    return (
        no(Reason.INVALID, f"spec: the registry can't hold it: {refusal}. Correct the object.")
        if refusal
        else None
    )


def registry_is_not_ahead(view: View, _: Decided) -> Finding | None:
    """A newer generation in the registry: this view of the object is old, or the object was restored."""
    result = view.attempts.write
    if result is None or result.outcome is not Outcome.STALE:
        return None
    return no(
        Reason.NOT_SYNCED,
        "The registry holds a newer generation of this object; if it was restored from a backup, change "
        "its spec until its generation is newer, or delete and create it again.",
    )


def not_yet(view: View, _: Decided) -> Finding:
    """The write has not been made."""
    why = "spec.suspend is true" if view.suspended else "it is about to be written"
    return no(Reason.NOT_SYNCED, f"The registry does not hold this generation: {why}.")


CHECKS: Final = (
    is_acceptable,
    is_in_the_registry,
    registry_answers,
    registry_can_hold_it,
    registry_is_not_ahead,
    not_yet,
)
