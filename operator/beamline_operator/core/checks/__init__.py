"""The conditions, in the order in which they are decided. Each is a flat list of checks; the first finding
counts.

A check is pure and looks for one thing. The last of each list always finds something. To add a check, write
it in the file of its condition and name it in that file's list; to add a condition, write a file and name it
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from beamline_contract.conditions import ConditionType

from ..view import Decided, Finding, View
from . import accepted, canary, programmed, progress, ready, references, synced, workload

Check: TypeAlias = Callable[[View, Decided], Finding | None]

CONDITIONS: Final[tuple[tuple[ConditionType, tuple[Check, ...]], ...]] = (
    (ConditionType.ACCEPTED, accepted.CHECKS),
    (ConditionType.RESOLVED_REFS, references.CHECKS),
    (ConditionType.SYNCED, synced.CHECKS),
    (ConditionType.WORKLOAD_READY, workload.CHECKS),
    (ConditionType.PROGRAMMED, programmed.CHECKS),
    (ConditionType.CANARY, canary.CHECKS),
    (ConditionType.READY, ready.CHECKS),
    (ConditionType.STALLED, progress.STALLED),
    (ConditionType.RECONCILING, progress.RECONCILING),
)

ONLY_FOR: Final = {ConditionType.WORKLOAD_READY: "Extension"}
"""Conditions that one kind alone has."""


def is_held_back(view: View) -> bool:
    """Whether this generation stays out of the registry, whatever else there is to say about it."""
    decided: dict[ConditionType, Finding] = {}
    for condition, checks in (
        (ConditionType.ACCEPTED, accepted.CHECKS),
        (ConditionType.RESOLVED_REFS, references.CHECKS),
    ):
        decided[condition] = next(finding for check in checks if (finding := check(view, decided)))
    return synced.is_acceptable(view, decided) is not None


def judge(view: View) -> dict[ConditionType, Finding]:
    """Every condition that applies to this object. Reconciling and Stalled are there only while true."""
    decided: dict[ConditionType, Finding] = {}
    for condition, checks in CONDITIONS:
        if ONLY_FOR.get(condition, view.kind) != view.kind:
            continue
        for check in checks:
            finding = check(view, decided)
            if finding is not None:
                decided[condition] = finding
                break
    return decided
