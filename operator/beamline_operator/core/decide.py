"""The decision: from a view to a plan. Pure, and the same view gives the same plan.

One decision asks for everything that can be done now; what depends on its outcome is asked for by the next
decision of the same pass, which sees it in ``view.attempts``. So no order of failures needs a branch of its
own.
"""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import ConditionType, Reason
from beamline_contract.names import FIELD_MANAGER, FINALIZER, GROUP, object_id
from beamline_contract.objects import author_of
from beamline_contract.projection import ExtensionRecord
from beamline_registry.port import Note, Outcome, Remove, Retain, Upsert, Write
from beamline_sdk.deployment.port import DeploymentRequest, Phase

from .canary import OVER, act_between, remembered
from .checks import judge
from .checks.synced import is_acceptable
from .plan import Plan
from .settings import ReconcileSettings
from .status import assemble, events
from .view import Decided, View, conditions_of

_AT_REST: Final = frozenset({Phase.READY, Phase.SCALED_TO_ZERO})
_UNSETTLED: Final = frozenset({Reason.WORKLOAD_PROGRESSING, Reason.CREDENTIALS_MISSING})
"""No event tells what pods wait for next: of a Secret that is there now, a key may be missing."""


def decide(view: View, settings: ReconcileSettings) -> Plan:
    """What is to be done about one object."""
    decided = judge(view)
    if view.object.metadata.deleting:
        return _farewell(view, decided)
    status = assemble(view, decided)
    if view.suspended:
        return Plan(status)
    told = events(view, decided)
    deploy = view.desired if _wants_deploy(view, decided) else None
    acceptable = is_acceptable(view, decided) is None
    writes = _upsert(view) if acceptable else ()
    return Plan(
        status=status,
        finalizer=True if not writes and _wants_finalizer(view, acceptable, deploy) else None,
        note=_note(view),
        writes=writes,
        deploy=deploy,
        adopts=deploy is not None and view.workload is not None and view.workload.retained,
        undeploy=_wants_undeploy(view, decided),
        events=told,
        requeue=_requeue(view, decided, settings),
        failed=_failure(view),
        wait=_wait(view, decided),
        remember=_remember(view),
    )


def _wants_finalizer(view: View, acceptable: bool, deploy: DeploymentRequest | None) -> bool:
    """For an object whose row, or workload, somebody has to clean up. It comes after the row, so that what is
    served does not wait for the API server, thousands of times; an object that is deleted in between is found
    gone by its watch, or by the sweep that each start begins with.
    """
    return (acceptable or deploy is not None) and not view.has_finalizer


def _wait(view: View, decided: Decided) -> float:
    """Only the routers are missing: the row is so new that they can't have reported it yet, or this process
    is so new that it has not heard of all of them, and what was said of this generation stands.

    A forced pass says at once that it was made: until then it would be made again with each wait.
    """
    if _failure(view) is not None or view.forced:
        return 0.0
    if view.unheard > 0 and view.object.status.get("observedGeneration") == view.generation and _told(view):
        return view.unheard
    programmed = decided.get(ConditionType.PROGRAMMED)
    under_way = programmed is not None and programmed.reason is Reason.PROGRAMMING
    if not under_way or view.canary is not None or view.rollback is not None:
        return 0.0
    return view.patience


def _told(view: View) -> bool:
    """Whether more was said than that the object was seen."""
    return ConditionType.PROGRAMMED in conditions_of(view.object.status)


def _remember(view: View) -> dict[str, object]:
    """A roll-back is written down before it is made: the failed revision must never be tried again."""
    if view.rollback is None:
        return {}
    said = view.rollback.to_status()
    if view.object.status.get("rolledBack") == said:
        return {}
    good = {} if view.good is None else {"lastGood": view.good.to_status()}
    return {"rolledBack": said, **good}


def _requeue(view: View, decided: Decided, settings: ReconcileSettings) -> float | None:
    """What no event announces: the end of a rollout, and of what is in the way of this object."""
    workload = decided.get(ConditionType.WORKLOAD_READY)
    waits: list[float] = []
    if workload is not None and workload.reason in _UNSETTLED:
        waits.append(settings.workload_poll_s)
    if view.rollback is not None and (view.workload is None or view.workload.phase not in _AT_REST):
        waits.append(settings.workload_poll_s)
    if view.canary is not None and view.canary.state not in OVER:
        waits.append(settings.canary_poll_s)
    if view.unheard > 0:
        waits.append(view.unheard)
    if waits:
        return min(waits)
    in_the_way = view.attempts.write is not None and view.attempts.write.outcome is Outcome.CONFLICT
    failed = workload is not None and workload.reason is Reason.WORKLOAD_FAILED
    if in_the_way or failed or view.attempts.deploy_fault is not None:
        return settings.blocked_poll_s
    return None


def _upsert(view: View) -> tuple[Write, ...]:
    attempts = view.attempts
    tried = (
        attempts.write is not None
        or attempts.registry_fault is not None
        or attempts.registry_refusal is not None
    )
    if view.record is None or view.in_registry:
        return ()
    upsert = Upsert(view.record, changed_by=_changed_by(view), request_id=view.object.metadata.request_id)
    if not tried:
        return (upsert,)
    result = attempts.write
    holder = result.holder if result is not None and result.outcome is Outcome.CONFLICT else None
    if holder == f"{view.record.namespace}/{view.record.name}" and not attempts.evicted:
        # The row of an earlier object with this very name: retained by it, or its end was missed.
        return (Remove(view.kind, view.record.id, "", 0, changed_by=FIELD_MANAGER), upsert)
    return ()


def _note(view: View) -> Note | None:
    """A canary that somebody promoted or aborted: that makes no generation, so no row would tell of it."""
    if view.row is None or view.attempts.noted or view.attempts.registry_fault is not None:
        return None
    acted = act_between(remembered(view.object.status), view.canary)
    if acted is None:
        return None
    word, changes = acted
    who, request_id = author_of(view.object.metadata, f"{GROUP}/{word}")
    return Note(view.kind, view.row.record.id, changes, who, request_id)


def _changed_by(view: View) -> str:
    """Whoever changed the object; a canary changes its own weight."""
    known, wanted = view.row.record if view.row is not None else None, view.record
    if (
        isinstance(known, ExtensionRecord)
        and isinstance(wanted, ExtensionRecord)
        and known.weight != wanted.weight
        and known.generation == wanted.generation
    ):
        return f"{FIELD_MANAGER} (canary)"
    return view.object.metadata.changed_by or "unknown"


def _wants_deploy(view: View, decided: Decided) -> bool:
    """A workload is applied as soon as its object is accepted: it needs neither the registry nor a router."""
    if (
        view.desired is None
        or not decided[ConditionType.ACCEPTED].holds
        or view.attempts.deploy_fault is not None
    ):
        return False
    if view.forced and view.attempts.deployed is None:
        return True
    running = view.workload.hash if view.workload is not None else ""
    return view.desired.hash not in {running, view.attempts.deployed}


def _wants_undeploy(view: View, decided: Decided) -> bool:
    """A workload that is no longer asked for goes; ``status.workloadHash`` says that there was one."""
    if view.extension is None or view.desired is not None or not decided[ConditionType.ACCEPTED].holds:
        return False
    tried = view.attempts.undeployed or view.attempts.deploy_fault is not None
    return bool(view.object.status.get("workloadHash")) and not tried


def _farewell(view: View, decided: Decided) -> Plan:
    """Row first, then workload, then the finalizer: it is never released before the registry is clean."""
    status = assemble(view, decided)
    ours = FINALIZER in view.object.metadata.finalizers and view.attempts.finalizer is not False
    failed = _failure(view)
    if failed is not None or not (ours or view.row is not None):
        return Plan(status, failed=failed)
    if view.retained:
        return _farewell_retained(view, status)
    if view.attempts.write is None:
        meta = view.object.metadata
        remove = Remove(
            view.kind,
            object_id(meta.name),
            meta.uid,
            meta.generation,
            changed_by=meta.deleted_by or FIELD_MANAGER,
            request_id=meta.deletion_request_id,
        )
        return Plan(status, writes=(remove,))
    if view.attempts.write.outcome is Outcome.STALE:
        return Plan(status, failed="the registry holds a newer generation of an object that is being deleted")
    if _had_workload(view) and not view.attempts.undeployed:
        return Plan(status, undeploy=True)
    return Plan(status, finalizer=False if ours else None)


def _farewell_retained(view: View, status: dict[str, object]) -> Plan:
    """What is left behind is what is there: a spec that was not accepted, or came while the object was
    suspended, is not rolled out by its end. A row that is to stay has to say so itself, or the next sweep
    takes it for an orphan: the policy may have changed with that spec.
    """
    meta = view.object.metadata
    if view.attempts.write is None:
        who = meta.deleted_by or FIELD_MANAGER
        kept = Retain(object_id(meta.name), meta.uid, meta.generation, who, meta.deletion_request_id)
        return Plan(status, writes=(kept,))
    if _had_workload(view) and not view.attempts.released:
        return Plan(status, release=True)
    return Plan(status, finalizer=False if FINALIZER in meta.finalizers else None)


def _had_workload(view: View) -> bool:
    return view.kind == "Extension" and (
        view.desired is not None or bool(view.object.status.get("workloadHash"))
    )


def _failure(view: View) -> str | None:
    if view.attempts.registry_fault is not None:
        return view.attempts.registry_fault
    if view.attempts.deploy_fault is not None and view.attempts.deploy_retryable:
        return view.attempts.deploy_fault
    if view.attempts.write is not None and view.attempts.write.outcome is Outcome.STALE:
        return "the registry holds a newer generation"
    return None
