"""What Flux and Argo CD make of every state that the operator brings an object into. The states are made by
the operator's own core, not written down.
"""

from __future__ import annotations

from typing import Any

import pytest

from beamline_contract.conditions import ConditionType, EventReason, Reason
from harness import gitops_extension_states, gitops_policy_states
from harness.gitops_verdicts import CASES, Prepare, argo, kstatus, shown

TABLES = (gitops_extension_states, gitops_policy_states)
"""To import them fills :data:`CASES`."""


@pytest.mark.parametrize(("prepare", "flux", "health", "reason"), CASES)
async def test_flux_and_argo_see_what_a_person_would(
    world: Any, prepare: Prepare, flux: str, health: str, reason: Reason | None
) -> None:
    key = await prepare(world)
    document = shown(world, key)
    found = world.verdict(key, ConditionType.READY)[1] if document.get("status") else None
    assert found == (None if reason is None else reason.value)
    assert kstatus(document) == flux
    verdict, message = argo(document)
    assert verdict == health
    assert message


@pytest.mark.parametrize("prepare", [pytest.param(case.values[0], id=case.id) for case in CASES])
async def test_every_condition_says_when_why_and_what_about(world: Any, prepare: Prepare) -> None:
    key = await prepare(world)
    stored = world.store.get(key)
    conditions = {found["type"]: found for found in stored.status.get("conditions", ())}
    seen = stored.status.get("observedGeneration")
    suspended = conditions.get("Ready", {}).get("reason") == "Suspended"
    for kind, found in conditions.items():
        assert kind in set(ConditionType)
        assert found["reason"] in set(Reason), "declared, each with a sentence"
        assert found["observedGeneration"] == seen or suspended
        assert found["message"].rstrip()[-1] in ".:;)" or kind == "Ready", found
        if found["status"] != "True":
            assert len(found["message"]) > len("See above.")
    assert not {"Reconciling", "Stalled"} <= set(conditions), "kstatus would hide one of them"
    for kind in {"Reconciling", "Stalled"} & set(conditions):
        assert conditions[kind]["status"] == "True", "there only while true"
    told = {event.reason for _, event in world.store.events}
    assert told <= set(EventReason)


async def test_the_first_sight_is_never_ready_to_either(world: Any) -> None:
    key = world.extension()
    await world.settle()
    first = dict(world.store.status_writes[0][1])
    document = {**shown(world, key), "status": first}
    assert kstatus(document) == "InProgress"
    assert argo(document)[0] == "Progressing"


def test_every_reason_that_ready_can_have_is_in_the_table() -> None:
    shown_here = {case.values[3] for case in CASES}
    elsewhere = {
        Reason.ACCEPTED, Reason.RESOLVED, Reason.SYNCED, Reason.PROGRAMMED, Reason.RECONCILING,
        Reason.NO_WORKLOAD, Reason.WORKLOAD_READY, Reason.WORKLOAD_SCALED_TO_ZERO, Reason.BREAKER_OPEN,
        Reason.CANARY_PROMOTED, Reason.NOT_READY, Reason.FENCED, Reason.OBSERVED, Reason.NOT_SYNCED,
        Reason.PENDING,
    }  # fmt: skip
    assert set(Reason) - elsewhere <= shown_here
