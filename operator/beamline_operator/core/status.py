"""From findings to the ``status`` of an object, and from one status to the next to the events worth telling.

A condition keeps its ``lastTransitionTime`` until its status changes. A status that says nothing new is equal
to the old one, byte for byte, and is not written: an idle cluster writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from beamline_contract.conditions import ConditionType, EventReason, Reason
from beamline_contract.names import object_id
from beamline_contract.objects import BrokenObject, Extension, RoutingPolicy
from beamline_contract.projection import COMPLEXITY_WARNING, PolicyRecord, complexity
from beamline_contract.references import Reference, fault_of

from .canary import State, remembered
from .checks.programmed import serving_routers
from .health import from_status
from .ports import Event
from .view import MAX_ANNOTATION, RECONCILE_AT, Decided, Finding, View, conditions_of, unknown

MAX_MESSAGE: Final = 4096
MAX_WARNINGS: Final = 32
MAX_REFERENCES: Final = 64


def first_sight(view: View) -> dict[str, Any]:
    """What a new object says at once: kstatus reads an object without conditions as ready."""
    seen = unknown(Reason.OBSERVED, "The object was seen for the first time; nothing is known yet.")
    return {
        "observedGeneration": view.generation,
        "conditions": _conditions(view, {ConditionType.READY: seen}),
    }


def assemble(view: View, decided: Decided) -> dict[str, Any]:
    """The whole status."""
    old = view.object.status
    status: dict[str, Any] = {}
    if view.kind == "Extension":
        status = from_status(old) if view.health is None else view.health.to_status()
    if isinstance(view.object, BrokenObject) or view.suspended:
        status = {name: value for name, value in old.items() if name != "conditions"}
    if isinstance(view.object, BrokenObject):  # these two speak of the observed generation
        status.pop("revision", None)
        status.pop("programmed", None)
    status["observedGeneration"] = view.generation
    status["id"] = object_id(view.object.metadata.name)
    status["conditions"] = _conditions(view, decided)
    if view.suspended:
        return status
    if forced := _last_forced(view):
        status["lastReconcileAt"] = forced
    if view.in_registry and view.row is not None:
        status["revision"] = view.row.revision
    if view.routers:
        serving, alive = serving_routers(view)
        status["programmed"] = f"{serving}/{alive}"
        if view.kind == "Extension":
            status.setdefault("breaker", "closed")  # routers speak of one that is not
    if isinstance(view.object, Extension):
        status |= _extension_status(view, view.object)
    elif isinstance(view.object, RoutingPolicy):
        status |= _policy_status(view, view.object)
    return status


def _last_forced(view: View) -> str:
    """The value of the annotation whose pass was made. One in which the world did not take the workload is
    still to come: nothing else would apply again what is as it was asked for.
    """
    asked = view.object.metadata.annotations.get(RECONCILE_AT, "")[:MAX_ANNOTATION]
    if asked and view.attempts.deploy_fault is not None and view.attempts.deploy_retryable:
        return str(view.object.status.get("lastReconcileAt", ""))
    return asked


def _extension_status(view: View, extension: Extension) -> dict[str, Any]:
    status: dict[str, Any] = {"subject": extension.subject}
    if view.canary is not None:
        status["canary"] = view.canary.to_status()
    if view.good is not None:
        status["lastGood"] = view.good.to_status()
    if view.rollback is not None:
        status["rolledBack"] = view.rollback.to_status()
    observed = view.workload
    if view.desired is not None and observed is not None:
        status["replicas"] = observed.replicas
        status["readyReplicas"] = observed.ready_replicas
        if observed.selector:
            status["selector"] = observed.selector
        if observed.hash:
            status["workloadHash"] = observed.hash
    elif "workloadHash" in extension.status and not view.attempts.undeployed:
        status["workloadHash"] = extension.status["workloadHash"]
    return status


def _policy_status(view: View, policy: RoutingPolicy) -> dict[str, Any]:
    assert isinstance(view.record, PolicyRecord)
    score = complexity(view.record.policy)
    warnings = [notice.message for notice in view.notices(policy.id) if notice.reason != "Complex"]
    if score > COMPLEXITY_WARNING:
        warnings.append(
            f"complexity {score} is above {COMPLEXITY_WARNING}: put validators into one group, "
            "or use fewer steps or fallbacks"
        )
    providers = [
        object_id(choice.extension_ref.name) for step in policy.spec.steps for choice in step.providers
    ]
    status: dict[str, Any] = {"complexity": score, "providers": ",".join(providers)[:1024]}
    references = [_reference_status(view, ref) for ref in view.references[:MAX_REFERENCES]]
    if references:
        status["references"] = references
    if warnings:
        status["warnings"] = [warning[:1024] for warning in warnings[:MAX_WARNINGS]]
    return status


def _reference_status(view: View, ref: Reference) -> dict[str, Any]:
    """Where a reference leads, and what is wrong there: with the reference itself, else with its target."""
    key = ref.target_key
    status = {"path": ref.path, "namespace": key.namespace, "name": key.name}
    fault = fault_of(view.object.metadata.namespace, ref)
    if fault is not None:
        return {**status, "reason": fault[0].value, "message": fault[1][:1024]}
    target = ref.target
    assert target is not None, "a reference without a fault leads somewhere"
    ready = conditions_of(target.status).get(ConditionType.READY, {})
    breaker = target.status.get("breaker", "closed")
    if ready.get("status") == "False":
        return {
            **status,
            "reason": Reason.NOT_READY.value,
            "message": f"It is not ready: {ready.get('reason')}.",
        }
    if breaker != "closed":
        return {**status, "reason": Reason.BREAKER_OPEN.value, "message": f"Its breaker is {breaker}."}
    return {**status, "reason": Reason.RESOLVED.value}


def _conditions(view: View, decided: Decided) -> list[dict[str, Any]]:
    before = {} if view.unseen else conditions_of(view.object.status)
    stamp = timestamp(view.now)
    conditions: list[dict[str, Any]] = []
    for kind in ConditionType:
        old = before.get(kind)
        finding = decided.get(kind)
        if view.suspended and kind in _FROZEN_WHILE_SUSPENDED:
            if old is not None:
                conditions.append(dict(old))
            continue
        if finding is None:
            continue
        changed = old is None or old.get("status") != finding.status
        conditions.append(
            {
                "type": kind.value,
                "status": finding.status,
                "observedGeneration": view.generation,
                "lastTransitionTime": stamp if changed or old is None else old["lastTransitionTime"],
                "reason": finding.reason.value,
                "message": finding.message[:MAX_MESSAGE],
            }
        )
    return conditions


_FROZEN_WHILE_SUSPENDED: Final = frozenset(
    {ConditionType.SYNCED, ConditionType.WORKLOAD_READY, ConditionType.PROGRAMMED}
)


def timestamp(moment: datetime) -> str:
    """RFC 3339 UTC in whole seconds, as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


_TOLD: Final[tuple[tuple[ConditionType, str, Reason | None, EventReason], ...]] = (
    (ConditionType.ACCEPTED, "False", None, EventReason.REJECTED),
    (ConditionType.RESOLVED_REFS, "False", None, EventReason.REFS_UNRESOLVED),
    (ConditionType.SYNCED, "True", None, EventReason.SYNCED),
    (ConditionType.WORKLOAD_READY, "False", Reason.WORKLOAD_FAILED, EventReason.WORKLOAD_FAILED),
    (ConditionType.WORKLOAD_READY, "False", Reason.CREDENTIALS_MISSING, EventReason.WORKLOAD_FAILED),
    (ConditionType.WORKLOAD_READY, "False", Reason.WORKLOAD_ROLLED_BACK, EventReason.WORKLOAD_ROLLED_BACK),
    (ConditionType.PROGRAMMED, "False", Reason.REFUSED, EventReason.REFUSED),
    (ConditionType.PROGRAMMED, "True", None, EventReason.PROGRAMMED),
)


def events(view: View, decided: Decided) -> tuple[Event, ...]:
    """What changed between the old conditions and these, as far as it is worth an event."""
    if view.suspended:
        return ()
    before = conditions_of(view.object.status)
    told = _breaker_events(view) + _canary_events(view)
    for kind, wanted, reason, event in _TOLD:
        finding = decided.get(kind)
        if finding is None or finding.status != wanted or reason not in {None, finding.reason}:
            continue
        if _is_news(before.get(kind), finding, view.generation):
            told.append(Event(event, finding.message[:1024], "Normal" if finding.holds else "Warning"))
    workload = decided.get(ConditionType.WORKLOAD_READY)
    if workload is not None and workload.holds and _had_failed(before.get(ConditionType.WORKLOAD_READY)):
        told.append(Event(EventReason.WORKLOAD_READY, workload.message[:1024]))
    if any(event.reason is EventReason.PROGRAMMED for event in told):  # says that it is in the registry, too
        told = [event for event in told if event.reason is not EventReason.SYNCED]
    return tuple(told)


def _breaker_events(view: View) -> list[Event]:
    if view.health is None:
        return []
    old, new = str(view.object.status.get("breaker", "closed")), view.health.breaker
    if old == new:
        return []
    if new == "closed":
        return [Event(EventReason.BREAKER_CLOSED, f"The breaker was {old} and is closed in every router.")]
    if old != "closed" and new == "half-open":
        return []
    error = f"; last error {view.health.last_error}" if view.health.last_error else ""
    return [
        Event(EventReason.BREAKER_OPENED, f"The breaker is {new} in at least one router{error}.", "Warning")
    ]


_CANARY_EVENTS: Final = {
    State.PROGRESSING: EventReason.CANARY_STEP,
    State.PAUSED: EventReason.CANARY_PAUSED,
    State.PROMOTED: EventReason.CANARY_PROMOTED,
    State.ROLLED_BACK: EventReason.CANARY_ROLLED_BACK,
    State.ABORTED: EventReason.CANARY_ABORTED,
}


def _canary_events(view: View) -> list[Event]:
    """One for each step, and for each end."""
    new = view.canary
    if new is None or new.state not in _CANARY_EVENTS:
        return []
    old = remembered(view.object.status)
    if old is not None and (old.state, old.step, old.revision) == (new.state, new.step, new.revision):
        return []
    bad = new.state in {State.ROLLED_BACK, State.ABORTED}
    return [Event(_CANARY_EVENTS[new.state], new.message[:1024], "Warning" if bad else "Normal")]


def _had_failed(old: Mapping[str, Any] | None) -> bool:
    return old is not None and old.get("reason") in {
        Reason.WORKLOAD_FAILED,
        Reason.WORKLOAD_ROLLED_BACK,
        Reason.CREDENTIALS_MISSING,
    }


def _is_news(old: Mapping[str, Any] | None, finding: Finding, generation: int) -> bool:
    if old is None:
        return True
    same = (old.get("status"), old.get("reason")) == (finding.status, finding.reason)
    return not same or old.get("observedGeneration") != generation
