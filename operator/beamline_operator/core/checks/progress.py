"""Reconciling and Stalled, which exist only while true (kstatus): is something under way, or is a person
needed?
"""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import ConditionType, Reason

from ..view import Decided, Finding, View, yes
from .references import BLOCKING

_PERSON_NEEDED: Final = frozenset(
    {
        Reason.INVALID,
        Reason.CONFLICTED,
        Reason.WORKLOAD_FAILED,
        Reason.WORKLOAD_ROLLED_BACK,
        Reason.CANARY_ROLLED_BACK,
        Reason.CANARY_ABORTED,
        Reason.WORKLOAD_NOT_RUNNABLE,
        Reason.CREDENTIALS_MISSING,
        Reason.REFUSED,
        Reason.REF_NOT_PERMITTED,
        *BLOCKING,
    }
)
_UNDER_WAY: Final = frozenset(
    {Reason.REGISTRY_UNAVAILABLE, Reason.NOT_SYNCED, Reason.WORKLOAD_PROGRESSING, Reason.PROGRAMMING}
)


def needs_a_person(view: View, decided: Decided) -> Finding | None:
    """Something that trying again can't change."""
    if view.object.metadata.deleting:
        return None
    if view.suspended:
        finding = decided[ConditionType.READY]
        return None if finding.holds else yes(finding.reason, finding.message)
    for condition, finding in decided.items():
        if (
            condition is not ConditionType.READY
            and finding.status == "False"
            and finding.reason in _PERSON_NEEDED
        ):
            return yes(finding.reason, f"{condition}: {finding.message}")
    return None


def is_being_deleted(view: View, _: Decided) -> Finding | None:
    """Removal from the registry is under way."""
    if not view.object.metadata.deleting:
        return None
    return yes(Reason.DELETING, "The object is being removed from the registry.")


def is_under_way(view: View, decided: Decided) -> Finding | None:
    """Work for this generation goes on without anybody's help."""
    if view.suspended or ConditionType.STALLED in decided:
        return None
    for condition, finding in decided.items():
        if (
            condition is not ConditionType.READY
            and finding.status == "False"
            and finding.reason in _UNDER_WAY
        ):
            return yes(Reason.RECONCILING, f"{condition}: {finding.message}")
    return None


def canary_is_under_way(view: View, decided: Decided) -> Finding | None:
    """A canary moves by itself, or as soon as it sees calls."""
    canary = decided.get(ConditionType.CANARY)
    if view.suspended or canary is None or canary.status != "Unknown" or ConditionType.STALLED in decided:
        return None
    return yes(Reason.RECONCILING, f"{ConditionType.CANARY}: {canary.message}")


STALLED: Final = (needs_a_person,)
RECONCILING: Final = (is_being_deleted, is_under_way, canary_is_under_way)
