"""ResolvedRefs: does every reference lead to an Extension that this object may use, of the right type?

Faults differ in weight. A target that is missing, broken or disabled leaves a policy that routers can serve:
the step answers NOT_FOUND and its failureMode decides, so the policy is synced. A target that did not agree,
or no longer does, is served the same way: the projection names it as denied, and routers treat it as absent.
So taking a namespace off ``allowedNamespaces`` takes the access away at once, whatever generation the policy
has. A target of the wrong type keeps the generation out of the registry (:data:`BLOCKING`).
"""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import Reason
from beamline_contract.references import gravest

from ..view import Decided, Finding, View, no, yes

BLOCKING: Final = frozenset({Reason.REF_WRONG_TYPE})


def lead_somewhere(view: View, _: Decided) -> Finding | None:
    """All references with the gravest fault that there is, each with its path."""
    found = gravest(view.object.metadata.namespace, view.references)
    if found is None:
        return None
    reason, faults = found
    return no(reason, " ".join(f"{path}: {fault}" for path, fault in faults))


def resolved(view: View, _: Decided) -> Finding:
    """Nothing speaks against it."""
    count = len(view.references)
    if not count:
        return yes(Reason.RESOLVED, "The object refers to nothing.")
    return yes(
        Reason.RESOLVED,
        f"{'Its reference leads' if count == 1 else f'All {count} references lead'} to an Extension.",
    )


CHECKS: Final = (lead_somewhere, resolved)
