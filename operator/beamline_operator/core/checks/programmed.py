"""Programmed: do the routers serve this generation? They say so themselves, on every swap and every few
seconds.
"""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import ConditionType, Reason
from beamline_contract.names import object_id
from beamline_contract.reports import Refused, RouterStatus

from ..view import Decided, Finding, View, no, unknown, yes


def is_synced(_: View, decided: Decided) -> Finding | None:
    """What is not in the registry can't be served."""
    if decided[ConditionType.SYNCED].holds:
        return None
    return no(Reason.NOT_SYNCED, "This generation is not in the registry, so no router serves it.")


def routers_report(view: View, _: Decided) -> Finding | None:
    """Without a router nobody can tell."""
    if view.routers:
        return None
    return unknown(
        Reason.NO_ROUTERS, "No router has reported lately: start one, or look at its connection to NATS."
    )


def no_router_refuses(view: View, _: Decided) -> Finding | None:
    """A refusal names router, field and reason."""
    refusals = refused_by(view)
    if not refusals:
        return None
    told = "; ".join(
        f"router {router.instance} refused {what.field}: {what.reason}" for router, what in refusals[:3]
    )
    more = f"; and {len(refusals) - 3} more" if len(refusals) > 3 else ""
    return no(Reason.REFUSED, f"{_count(view)}; {told}{more}. The last good generation keeps serving.")


def every_router_serves(view: View, _: Decided) -> Finding:
    """How many of how many."""
    serving, alive = serving_routers(view)
    if serving == alive:
        return yes(Reason.PROGRAMMED, f"{_count(view)}.")
    return no(Reason.PROGRAMMING, f"{_count(view)}.")


def refused_by(view: View) -> list[tuple[RouterStatus, Refused]]:
    """Which routers refuse this generation, and why."""
    identifier = object_id(view.object.metadata.name)
    return [
        (router, refusal)
        for router in view.routers
        for refusal in router.refused
        if (refusal.kind, refusal.id, refusal.generation) == (view.kind, identifier, view.generation)
    ]


def serving_routers(view: View) -> tuple[int, int]:
    """(routers that serve this generation, routers alive)."""
    if view.row is None or not view.in_registry:
        return 0, len(view.routers)
    refusing = {router.instance for router, _ in refused_by(view)}
    revision = view.row.revision
    serving = sum(router.revision >= revision and router.instance not in refusing for router in view.routers)
    return serving, len(view.routers)


def _count(view: View) -> str:
    serving, alive = serving_routers(view)
    return f"{serving}/{alive} routers at generation {view.generation}"


CHECKS: Final = (is_synced, routers_report, no_router_refuses, every_router_serves)
