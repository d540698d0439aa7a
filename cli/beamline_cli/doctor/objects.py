"""Checks of the objects themselves, by their status."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from .finalizers import stuck
from .patient import Finding, Patient, condition, failed, first, name_of, ok, skipped, warning

_WAITS: Final = frozenset(
    {"Reconciling", "Observed", "WorkloadProgressing", "Programming", "NotSynced", "Deleting"}
)
"""Reasons of a change under way."""
_CHOSEN: Final = frozenset({"Disabled", "Suspended", "CanaryPaused"})
"""Reasons that somebody chose."""


async def finalizers(patient: Patient) -> Finding:
    """No object hangs in its deletion."""
    if patient.api is None:
        return skipped("files have no finalizers")
    found = await stuck(patient.api, patient.namespaces, patient.now)
    if not found:
        return ok("no object hangs in its deletion")
    return failed(
        f"{first(found)} can't go: no operator takes the finalizer off",
        "start the operator, or `beamline doctor --release-finalizers`",
    )


async def stalled(patient: Patient) -> Finding:
    """No object needs a person."""
    found = [
        f"{item['kind']} {name_of(item)} ({condition(item, 'Stalled').get('reason')})"
        for item in await patient.objects()
        if condition(item, "Stalled").get("status") == "True"
    ]
    if not found:
        return ok("no object needs a person")
    return warning(f"stalled: {first(found)}", "`beamline get -o wide` says what each needs")


async def extensions_ready(patient: Patient) -> Finding:
    """Every enabled Extension is ready for the generation that stands there."""
    items = [item for item in await patient.objects() if item["kind"] == "Extension"]
    unseen = [name_of(item) for item in items if not _seen(item)]
    if unseen:
        return warning(
            f"no operator has looked at {first(unseen)} yet", "`beamline logs operator`, where it stays so"
        )
    troubled = [f"{name_of(item)} ({reason})" for item in items if (reason := _trouble(item))]
    if troubled:
        return failed(
            f"not ready: {first(troubled)}", "`beamline get ext -o wide`, `beamline logs EXTENSION`"
        )
    waiting = [name_of(item) for item in items if _is_waiting(item)]
    if waiting:
        return warning(f"under way: {first(waiting)}", "look again in a minute")
    return ok(f"{len(items)} Extensions, every enabled one ready")


async def policies_programmed(patient: Patient) -> Finding:
    """Every RoutingPolicy is served by every router, as it stands there."""
    items = [item for item in await patient.objects() if item["kind"] == "RoutingPolicy"]
    if not items:
        return warning(
            "there is no RoutingPolicy: every prompt is answered NOT_FOUND",
            "`kubectl apply -f examples/quickstart`",
        )
    behind = []
    for item in items:
        programmed = condition(item, "Programmed")
        current = programmed.get("observedGeneration") == item["metadata"].get("generation")
        if item["spec"].get("suspend") or (current and programmed.get("status") == "True"):
            continue
        behind.append(
            f"{name_of(item)} ({programmed.get('reason', 'not seen') if current else 'not seen yet'})"
        )
    if behind:
        return failed(f"not in every router: {first(behind)}", "`beamline get rp -o wide`")
    return ok(f"{len(items)} RoutingPolicies are in every router")


async def suspended(patient: Patient) -> Finding:
    """Nothing was put aside and forgotten."""
    found = [
        f"{item['kind']} {name_of(item)}" for item in await patient.objects() if item["spec"].get("suspend")
    ]
    if found:
        return warning(f"suspended, so that no change takes effect: {first(found)}", "`beamline resume` it")
    return ok("nothing is suspended")


def age_of(item: Mapping[str, Any], now: datetime) -> float:
    """Seconds since an object was made; 0 where that is not known."""
    stamp = item["metadata"].get("creationTimestamp")
    return (now - datetime.fromisoformat(stamp)).total_seconds() if stamp else 0.0


def _seen(item: Mapping[str, Any]) -> bool:
    return bool(condition(item, "Ready")) or bool(item["spec"].get("suspend"))


def _is_waiting(item: Mapping[str, Any]) -> bool:
    ready = condition(item, "Ready")
    stale = ready.get("observedGeneration") != item["metadata"].get("generation")
    off = item["spec"].get("suspend")
    return not off and (stale or (ready.get("status") != "True" and ready.get("reason") in _WAITS))


def _trouble(item: Mapping[str, Any]) -> str:
    """Why an Extension is not ready, where that is neither chosen nor under way; else ''."""
    ready = condition(item, "Ready")
    if _is_waiting(item) or ready.get("status") == "True" or ready.get("reason") in _CHOSEN:
        return ""
    return "" if item["spec"].get("suspend") else str(ready.get("reason", "unknown"))
