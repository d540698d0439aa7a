"""Ready: all conditions decided before it folded into the one that people and tools wait for. Its reason is
that of the first culprit.
"""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import ConditionType, Reason
from beamline_contract.names import object_id

from ..config_schema import config_faults
from ..view import Decided, Finding, View, conditions_of, no, unknown, yes

_SUSPENDED: Final = "spec.suspend is true: nothing is changed until it is false"


def is_not_being_deleted(view: View, _: Decided) -> Finding | None:
    """On its way out."""
    if not view.object.metadata.deleting:
        return None
    return no(
        Reason.DELETING, "The object is being deleted; it leaves the registry first, then its workload goes."
    )


def is_not_suspended(view: View, _: Decided) -> Finding | None:
    """A suspended object asks to be left as it is, and has that: nobody need wait for more. What was wrong
    with it stays wrong, though, and waiting does not help.
    """
    if not view.suspended:
        return None
    told = conditions_of(view.object.status).get(ConditionType.READY, {})
    if told.get("status") != "False":
        return yes(Reason.SUSPENDED, f"{_SUSPENDED}; what is served stays.")
    if told.get("reason") == Reason.SUSPENDED:
        return no(Reason.SUSPENDED, str(told.get("message", "")))
    return no(
        Reason.SUSPENDED,
        f"{_SUSPENDED}, and it was not ready before: {told.get('reason')}: {told.get('message')}",
    )


def nothing_fails(_: View, decided: Decided) -> Finding | None:
    """The first condition that is False, in their order."""
    for condition, finding in decided.items():
        if finding.status == "False":
            return no(finding.reason, f"{condition}: {finding.message}")
    return None


def nothing_is_unknown(_: View, decided: Decided) -> Finding | None:
    """The first condition that is Unknown, in their order."""
    for condition, finding in decided.items():
        if finding.status == "Unknown":
            return unknown(finding.reason, f"{condition}: {finding.message}")
    return None


def config_fits_its_schema(view: View, _: Decided) -> Finding | None:
    """The extension that runs refuses each request with such a configuration. Nothing is held back for it:
    the next version of the extension may know it.
    """
    if view.extension is None or view.config_schema is None:
        return None
    faults = config_faults(view.config_schema, view.extension.spec.config)
    if not faults:
        return None
    return no(
        Reason.CONFIG_INVALID,
        f"{'; '.join(faults)}. The extension that runs publishes a schema which this breaks, and refuses "
        "requests: correct spec.config, or roll out the version that takes it.",
    )


def overrides_fit_their_schemas(view: View, _: Decided) -> Finding | None:
    """The same for what a policy's steps lay over the configuration of the extensions that they call."""
    for override in view.overrides:
        if faults := override.faults():
            return no(
                Reason.CONFIG_INVALID,
                f"{'; '.join(faults)}. It is laid over the config of Extension {override.extension.name}, "
                "which refuses requests with it: correct the step, or roll out the version that takes it.",
            )
    return None


def is_enabled(view: View, _: Decided) -> Finding | None:
    """A disabled extension has what it asks for: to be in no router's table."""
    if view.enabled:
        return None
    return yes(Reason.DISABLED, "spec.enabled is false: in no router's table, workload at zero.")


def takes_requests(view: View, _: Decided) -> Finding | None:
    """Ready, but not as its author may think: the routers remark that no request gets here."""
    for notice in view.notices(object_id(view.object.metadata.name)):
        if notice.reason == "MatchesNothing":
            return yes(Reason.MATCHES_NOTHING, notice.message)
        if notice.reason == "Overridden":
            holder = view.holders.get(notice.other_id or "")
            other = f" ({holder or notice.other_id})" if notice.other_id else ""
            return yes(Reason.OVERRIDDEN, f"{notice.message}{other}")
    return None


def ready(_: View, __: Decided) -> Finding:
    """Nothing speaks against it."""
    return yes(Reason.READY, "Everything that the object asks for is so.")


CHECKS: Final = (
    is_not_being_deleted,
    is_not_suspended,
    nothing_fails,
    nothing_is_unknown,
    is_enabled,
    config_fits_its_schema,
    overrides_fit_their_schemas,
    takes_requests,
    ready,
)
