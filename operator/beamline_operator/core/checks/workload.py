"""WorkloadReady: does what runs the extension run as asked? Extensions only."""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import ConditionType, Reason
from beamline_sdk.deployment.port import Phase

from ..rollback import return_to
from ..view import Decided, Finding, View, no, unknown, yes


def is_asked_for(view: View, decided: Decided) -> Finding | None:
    """An Extension without a workload runs elsewhere; one that is not accepted gets none."""
    if not decided[ConditionType.ACCEPTED].holds:
        return unknown(Reason.NOT_SYNCED, "The object is not accepted, so its workload is left as it is.")
    if view.desired is None:
        return yes(Reason.NO_WORKLOAD, "The object has no spec.workload: the extension runs elsewhere.")
    return None


def could_be_applied(view: View, _: Decided) -> Finding | None:
    """The world refused the workload, or did not answer."""
    fault = view.attempts.deploy_fault
    if fault is None:
        return None
    if view.attempts.deploy_retryable:
        return no(Reason.WORKLOAD_PROGRESSING, f"spec.workload: {fault}; it is tried again.")
    if view.attempts.deploy_conflict:
        return no(Reason.CONFLICTED, f"metadata.name: {fault}.")
    return no(
        Reason.WORKLOAD_FAILED,
        f"spec.workload: {fault}. Correct spec.workload; what ran before, if anything, runs on.",
    )


def is_as_observed(view: View, _: Decided) -> Finding | None:
    """What the world says of the state that was applied last."""
    status, desired = view.workload, view.desired
    if status is None or desired is None or status.hash != desired.hash:
        return None
    wanted = desired.replicas if desired.workload.autoscaling is None else status.replicas
    counted = f"{status.ready_replicas}/{wanted} replicas ready"
    detail = f"{counted}. {status.message}".strip() if status.message else f"{counted}."
    match status.phase:
        case Phase.READY:
            return yes(Reason.WORKLOAD_READY, detail)
        case Phase.SCALED_TO_ZERO:
            cause = "spec.enabled is false" if not view.enabled else "spec.workload.replicas is 0"
            return yes(Reason.WORKLOAD_SCALED_TO_ZERO, f"No replica runs: {cause}.")
        case Phase.FAILED:
            return no(Reason.WORKLOAD_FAILED, detail + _way_back(view))
        case Phase.CREDENTIALS_MISSING:
            return no(Reason.CREDENTIALS_MISSING, detail)
        case Phase.NOT_RUNNABLE:
            return no(Reason.WORKLOAD_NOT_RUNNABLE, status.message or "This world can't run the workload.")
        case _:
            return no(Reason.WORKLOAD_PROGRESSING, detail)


def _way_back(view: View) -> str:
    """The last revision that was ready, where it is another one than this."""
    good = return_to(view.good, view.desired) if view.desired is not None else None
    if good is None:
        return ""
    return (
        f" The last good revision is that of generation {good.generation} ({good.workload.image}), in "
        "status.lastGood: put it back into spec.workload, or set spec.workload.rollback to auto."
    )


def not_yet(view: View, _: Decided) -> Finding:
    """It has not been applied."""
    why = "spec.suspend is true" if view.suspended else "it is about to be applied"
    return no(Reason.WORKLOAD_PROGRESSING, f"The workload of this generation does not run: {why}.")


def was_not_rolled_back(view: View, _: Decided) -> Finding | None:
    """The revision that is asked for failed, and the last good one runs in its place."""
    failed, good = view.rollback, view.good
    if failed is None or good is None or view.desired is None or not view.desired.replicas:
        return None
    ready = (
        view.workload is not None
        and view.workload.phase is Phase.READY
        and (view.workload.hash == view.desired.hash)
    )
    return no(
        Reason.WORKLOAD_ROLLED_BACK,
        f"spec.workload: generation {failed.generation} failed: {failed.message} Generation "
        f"{good.generation} ({good.workload.image}) {'runs again' if ready else 'is coming back'}; change "
        "spec.workload to try again.",
    )


CHECKS: Final = (is_asked_for, could_be_applied, was_not_rolled_back, is_as_observed, not_yet)
