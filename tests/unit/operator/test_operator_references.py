"""What a policy may use, what its status says about each reference, and how access ends."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_contract.reports import HealthDelta, Notice, RouterHealth
from beamline_operator.core.settings import ReconcileSettings
from beamline_operator.core.view import RECONCILE_AT
from beamline_sdk.deployment.port import DeploymentError


def shared(world: Any, *allowed: str) -> Any:
    return world.extension("gpt", namespace="shared", allowedNamespaces=list(allowed))


def foreign_policy(world: Any) -> Any:
    providers = [{"extensionRef": {"name": "gpt", "namespace": "shared"}}]
    steps = [{"action": "select_provider", "providers": providers}]
    return world.store.apply("RoutingPolicy", "default", {"steps": steps}, namespace="team-a")


async def document(world: Any) -> dict[str, Any]:
    return dict((await world.rows())["default"].policy)


async def test_taking_a_namespace_off_the_list_takes_the_access_away_and_back(world: Any) -> None:
    shared(world, "team-a")
    key = foreign_policy(world)
    await world.settle()
    assert "denied" not in await document(world)
    shared(world)
    await world.settle()
    assert (await document(world))["denied"] == ["gpt"]
    assert world.verdict(key, "ResolvedRefs") == ("False", "RefNotPermitted")
    assert world.verdict(key, "Ready")[0] == "False"
    shared(world, "team-a")
    await world.settle()
    assert "denied" not in await document(world)
    assert world.verdict(key, "ResolvedRefs")[0] == "True"


async def test_a_new_process_does_not_give_the_access_back(world: Any) -> None:
    shared(world)
    foreign_policy(world)
    await world.settle()
    world.restart()
    await world.settle()
    assert (await document(world))["denied"] == ["gpt"]


async def test_a_target_that_broke_still_says_whom_it_allows(world: Any) -> None:
    shared(world, "team-a")
    foreign_policy(world)
    await world.settle()
    world.extension("gpt", namespace="shared", allowedNamespaces=["team-a"], timeoutMs=-1)
    await world.settle()
    assert "denied" not in await document(world)
    world.extension("gpt", namespace="shared", allowedNamespaces=[], timeoutMs=-1)
    await world.settle()
    assert (await document(world))["denied"] == ["gpt"]


async def test_an_extension_whose_fallback_is_denied_fails_closed(world: Any) -> None:
    shared(world, "default")
    reference = {"name": "gpt", "namespace": "shared"}
    world.extension("main", failureMode="fallback", fallbackRef=reference)
    await world.settle()
    assert (await world.rows())["main"].spec["fallbackRef"] == reference
    shared(world)
    await world.settle()
    spec = (await world.rows())["main"].spec
    assert "fallbackRef" not in spec
    assert spec["failureMode"] == "closed"


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        pytest.param(None, "RefNotFound", "there is no Extension gpt", id="missing"),
        pytest.param({"type": "pre"}, "RefWrongType", "of type pre", id="wrong type"),
        pytest.param({"timeoutMs": -1}, "RefNotAccepted", "not accepted", id="broken"),
        pytest.param({"enabled": False}, "RefDisabled", "spec.enabled false", id="disabled"),
        pytest.param({}, "Resolved", "", id="fine"),
    ],
)
async def test_status_lists_each_reference_with_what_is_wrong(
    world: Any, spec: dict[str, Any] | None, reason: str, says: str
) -> None:
    world.extension("other")
    if spec is not None:
        world.extension("gpt", **spec)
    key = world.policy("gpt", "other")
    world.report()
    await world.settle()
    world.report()
    await world.settle()
    first, second = world.store.get(key).status["references"]
    assert (first["path"], first["namespace"], first["name"], first["reason"]) == (
        "spec.steps[0].providers[0].extensionRef", "default", "gpt", reason,
    )  # fmt: skip
    assert says in first.get("message", "")
    assert second["reason"] == "Resolved"


async def test_a_reference_shows_that_its_target_is_not_ready_or_its_breaker_open(world: Any) -> None:
    world.extension("gpt")
    key = world.policy("gpt")
    world.report(
        refused=[{"kind": "Extension", "id": "gpt", "generation": 1, "field": "spec", "reason": "x"}]
    )
    await world.settle()
    (reference,) = world.store.get(key).status["references"]
    assert (reference["reason"], reference["message"]) == ("NotReady", "It is not ready: Refused.")
    world.report()
    await world.settle()
    delta = HealthDelta(extension_id="gpt", breaker="open", failure=1)
    world.controller.on_health(RouterHealth(instance="r1", sequence=0, deltas=[delta]))
    await world.settle()
    (reference,) = world.store.get(key).status["references"]
    assert (reference["reason"], reference["message"]) == ("BreakerOpen", "Its breaker is open.")


async def test_an_overridden_policy_names_the_object_that_takes_its_requests(world: Any) -> None:
    world.extension("gpt")
    key = world.policy("gpt", name="small-one")
    world.policy("gpt", name="big-one")
    await world.settle()
    notice = Notice(
        kind="RoutingPolicy", id="small_one", reason="Overridden", message="taken", other_id="big_one"
    )
    world.report(notices=[notice])
    await world.settle()
    assert world.verdict(key, "Ready") == ("True", "Overridden")
    assert "RoutingPolicy default/big-one" in world.message(key, "Ready")


async def test_reconcile_at_writes_and_applies_once_more_and_is_remembered(world: Any) -> None:
    key = world.extension("guard", workload={"image": "x:1"})
    await world.settle()
    applied, rows = len(world.deployments.deployed), await world.rows()
    world.store.annotate(key, {RECONCILE_AT: "2030-01-01"})
    await world.settle()
    assert len(world.deployments.deployed) == applied + 1
    assert world.store.get(key).status["lastReconcileAt"] == "2030-01-01"
    assert (await world.rows()) == rows, "equal content is not written again"
    world.controller.enqueue(key)
    await world.settle()
    assert len(world.deployments.deployed) == applied + 1


async def test_a_forced_pass_is_made_once_also_where_a_router_lags_behind(world: Any) -> None:
    world.settings = ReconcileSettings(patience_s=0.5)
    world.restart()
    key = world.extension("guard", workload={"image": "x:1"})
    await world.settle()
    world.report(revision=0)
    await world.advance(30)
    applied = len(world.deployments.deployed)
    world.store.annotate(key, {RECONCILE_AT: "2030-01-01"})
    await world.settle()
    for _ in range(10):
        await world.advance(0.5)
    assert world.store.get(key).status["lastReconcileAt"] == "2030-01-01"
    assert len(world.deployments.deployed) == applied + 1


async def test_a_forced_pass_that_the_world_did_not_take_is_still_to_come(world: Any) -> None:
    key = world.extension("guard", workload={"image": "x:1"})
    await world.settle()
    applied = len(world.deployments.deployed)
    world.deployments.fail = DeploymentError("the API server can't be asked")
    world.store.annotate(key, {RECONCILE_AT: "2030-01-01"})
    await world.settle()
    assert "lastReconcileAt" not in world.store.get(key).status
    world.deployments.fail = None
    await world.advance(5)
    assert len(world.deployments.deployed) == applied + 1
    assert world.store.get(key).status["lastReconcileAt"] == "2030-01-01"
