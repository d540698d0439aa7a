"""Each condition says what is so, for every check a case where it fails. Through the whole core, on fakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from beamline_contract.reports import Notice, Refused
from beamline_registry.port import RegistryUnavailableError
from beamline_sdk.deployment.port import DeploymentError, Phase

Workload = {"image": "ghcr.io/beamline/beamline:0.1.0"}


async def test_first_sight_writes_ready_unknown_before_anything_else(world: Any) -> None:
    key = world.extension()
    await world.settle()
    first = world.store.status_writes[0][1]
    assert first["observedGeneration"] == 1
    assert [(c["type"], c["status"], c["reason"]) for c in first["conditions"]] == [
        ("Ready", "Unknown", "Observed")
    ]
    assert world.store.get(key).status["observedGeneration"] == 1


async def test_an_extension_without_workload_is_ready_once_every_router_serves_it(world: Any) -> None:
    key = world.extension()
    await world.settle()
    assert world.verdict(key, "Programmed") == ("Unknown", "NoRouters")
    assert world.verdict(key, "Ready") == ("Unknown", "NoRouters")
    world.report()
    await world.settle()
    assert world.verdict(key, "WorkloadReady") == ("True", "NoWorkload")
    assert world.verdict(key, "Ready") == ("True", "Ready")
    assert world.store.get(key).status["programmed"] == "1/1"


async def test_programmed_counts_routers_and_names_the_generation(world: Any) -> None:
    key = world.extension()
    await world.settle()
    world.report("r1")
    world.report("r2", revision=0)
    await world.settle()
    assert world.verdict(key, "Programmed") == ("False", "Programming")
    assert world.message(key, "Programmed") == "1/2 routers at generation 1."
    assert world.verdict(key, "Reconciling") == ("True", "Reconciling")
    world.report("r2")
    await world.settle()
    assert world.verdict(key, "Programmed") == ("True", "Programmed")
    assert world.verdict(key, "Reconciling") == ("", "")


async def test_a_refusal_names_router_field_and_reason(world: Any) -> None:
    key = world.extension("guard")
    await world.settle()
    refused = Refused(
        kind="Extension", id="guard", generation=1, field="spec.config.x", reason="is not a number"
    )
    world.report("r7", refused=[refused])
    await world.settle()
    assert world.verdict(key, "Programmed") == ("False", "Refused")
    assert "router r7 refused spec.config.x: is not a number" in world.message(key, "Programmed")
    assert world.verdict(key, "Stalled") == ("True", "Refused")


async def test_a_router_that_leaves_no_longer_counts(world: Any) -> None:
    key = world.extension()
    await world.settle()
    world.report("r1")
    world.report("r2", revision=0)
    world.report("r2", leaving=True)
    await world.settle()
    await world.advance(1)
    assert world.message(key, "Programmed") == "1/1 routers at generation 1."


async def test_a_process_that_has_just_started_leaves_what_was_said_until_it_knows_the_routers(
    world: Any,
) -> None:
    key = world.extension()
    await world.settle()
    for instance in ("r1", "r2"):
        world.report(instance)
    await world.settle()
    writes, router = world.store.writes, world.hints.alive.pop("r2")
    world.hints.listening = 1.0
    world.restart()
    await world.settle()
    assert world.store.writes == writes
    new = world.extension("new")
    await world.settle()
    assert world.message(new, "Programmed") == "0/1 routers at generation 1."
    world.hints.listening = 0.0
    world.hints.alive["r2"] = router
    await world.advance(1)
    assert world.message(key, "Programmed") == "2/2 routers at generation 1."
    assert world.message(new, "Programmed") == "0/2 routers at generation 1."


async def test_a_broken_object_names_every_fault_and_leaves_the_row(world: Any) -> None:
    key = world.extension(timeoutMs=100)
    await world.settle()
    world.extension(timeoutMs=0, retry=9)
    await world.settle()
    assert world.verdict(key, "Accepted") == ("False", "Invalid")
    assert "spec.timeoutMs" in world.message(key, "Accepted")
    assert "spec.retry" in world.message(key, "Accepted")
    assert world.verdict(key, "Synced") == ("False", "NotSynced")
    assert (await world.rows())["guard"].timeout_ms == 100


@pytest.mark.parametrize(
    ("prepare", "reason", "says", "synced"),
    [
        pytest.param(lambda world: None, "RefNotFound", "no Extension gpt", True, id="target missing"),
        pytest.param(
            lambda world: world.extension("gpt", type="pre"),
            "RefWrongType", "is of type pre, the step needs provider", False, id="target of the wrong type",
        ),
        pytest.param(
            lambda world: world.extension("gpt", enabled=False),
            "RefDisabled", "spec.enabled false", True, id="target disabled",
        ),
        pytest.param(
            lambda world: world.extension("gpt", timeoutMs=-1),
            "RefNotAccepted", "is not accepted", True, id="target broken",
        ),
        pytest.param(
            lambda world: world.extension("gpt", namespace="other"),
            "RefNotPermitted", "allowedNamespaces", True, id="only a namesake in another namespace",
        ),
    ],
)  # fmt: skip
async def test_a_reference_that_does_not_resolve(
    world: Any, prepare: Callable[[Any], object], reason: str, says: str, synced: bool
) -> None:
    prepare(world)
    key = world.policy("gpt")
    await world.settle()
    assert world.verdict(key, "ResolvedRefs") == ("False", reason)
    assert "spec.steps[0].providers[0].extensionRef" in world.message(key, "ResolvedRefs")
    assert says in world.message(key, "ResolvedRefs")
    assert world.verdict(key, "Synced")[0] == str(synced)
    assert world.verdict(key, "Ready")[0] == "False"
    assert ("default" in await world.rows()) is synced


@pytest.mark.parametrize(
    ("prepare", "reason", "says", "synced"),
    [
        pytest.param(lambda world: None, "RefNotFound", "no Extension gpt", True, id="of nothing"),
        pytest.param(
            lambda world: world.extension("gpt", type="pre"),
            "RefWrongType", "is of type pre, the step needs provider", False, id="of another type",
        ),
        pytest.param(
            lambda world: world.extension("gpt", type="provider", version="v1", versionOf="older"),
            "RefWrongType", "is itself a version of older", False, id="of a version",
        ),
        pytest.param(
            lambda world: world.extension("gpt", namespace="other", type="provider"),
            "RefNotPermitted", "allowedNamespaces", True, id="of one in another namespace",
        ),
    ],
)  # fmt: skip
async def test_a_version(
    world: Any, prepare: Callable[[Any], object], reason: str, says: str, synced: bool
) -> None:
    prepare(world)
    key = world.extension("gpt-two", type="provider", version="v2", versionOf="gpt")
    await world.settle()
    assert world.verdict(key, "ResolvedRefs") == ("False", reason)
    assert "spec.versionOf" in world.message(key, "ResolvedRefs")
    assert says in world.message(key, "ResolvedRefs")
    row = (await world.rows()).get("gpt_two")
    assert (row is not None) is synced
    if row is not None and reason == "RefNotPermitted":
        assert not row.enabled
        assert "versionOf" not in row.spec, "no router may hang it under the id of another namespace"


async def test_a_version_resolves_when_its_base_appears(world: Any) -> None:
    key = world.extension("gpt-two", type="provider", version="v2", versionOf="gpt")
    await world.settle()
    world.extension("gpt", type="provider")
    await world.settle()
    assert world.verdict(key, "ResolvedRefs") == ("True", "Resolved")


async def test_another_namespace_is_reached_by_name_and_with_permission_only(world: Any) -> None:
    target = world.extension("gpt", namespace="shared")
    steps = [
        {"action": "select_provider", "providers": [{"extensionRef": {"name": "gpt", "namespace": "shared"}}]}
    ]
    key = world.store.apply("RoutingPolicy", "default", {"steps": steps})
    await world.settle()
    assert world.verdict(key, "ResolvedRefs") == ("False", "RefNotPermitted")
    world.extension("gpt", namespace="shared", allowedNamespaces=["default"])
    await world.settle()
    assert world.verdict(key, "ResolvedRefs") == ("True", "Resolved")
    assert world.verdict(target, "Accepted") == ("True", "Accepted")


async def test_a_policy_resolves_when_its_extension_appears_and_breaks_when_it_goes(world: Any) -> None:
    key = world.policy("gpt")
    await world.settle()
    target = world.extension("gpt")
    await world.settle()
    assert world.verdict(key, "ResolvedRefs") == ("True", "Resolved")
    world.store.delete(target)
    await world.settle()
    assert world.verdict(key, "ResolvedRefs") == ("False", "RefNotFound")


@pytest.mark.parametrize(
    ("second", "path", "value"),
    [
        pytest.param({"name": "a", "namespace": "later"}, "metadata.name", "a", id="same id"),
        pytest.param(
            {"name": "b", "subject": "beamline.provider.a.v1"}, "spec.subject", "beamline.provider.a.v1",
            id="same subject",
        ),
    ],
)  # fmt: skip
async def test_the_older_of_two_rivals_wins_and_the_loser_follows(
    world: Any, second: dict[str, Any], path: str, value: str
) -> None:
    winner = world.extension("a")
    world.clock.advance(60)
    loser = world.extension(**second)
    await world.settle()
    assert world.verdict(winner, "Accepted") == ("True", "Accepted")
    assert world.verdict(loser, "Accepted") == ("False", "Conflicted")
    assert path in world.message(loser, "Accepted")
    assert value in world.message(loser, "Accepted")
    assert str(winner) in world.message(loser, "Accepted")
    world.store.delete(winner)
    await world.settle()
    assert world.verdict(loser, "Accepted") == ("True", "Accepted")
    assert world.verdict(loser, "Synced") == ("True", "Synced")


async def test_a_registry_that_is_down_is_said_and_tried_again(world: Any) -> None:
    world.registry.outage = RegistryUnavailableError("connection refused")
    key = world.extension(workload=Workload)
    await world.settle()
    assert world.verdict(key, "Synced") == ("False", "RegistryUnavailable")
    assert world.deployments.running, "the workload does not wait for the registry"
    world.registry.outage = None
    await world.advance(2)
    assert world.verdict(key, "Synced") == ("True", "Synced")


@pytest.mark.parametrize(
    ("phase", "status", "reason"),
    [
        pytest.param(Phase.PROGRESSING, "False", "WorkloadProgressing", id="rolling out"),
        pytest.param(Phase.FAILED, "False", "WorkloadFailed", id="failed"),
        pytest.param(Phase.CREDENTIALS_MISSING, "False", "CredentialsMissing", id="a key is missing"),
        pytest.param(Phase.NOT_RUNNABLE, "False", "WorkloadNotRunnable", id="not runnable here"),
        pytest.param(Phase.READY, "True", "WorkloadReady", id="ready"),
    ],
)
async def test_what_the_world_says_of_a_workload_reaches_the_condition(
    world: Any, phase: Phase, status: str, reason: str
) -> None:
    world.deployments.phase["guard"] = (phase, "The image can't be pulled.")
    key = world.extension("guard", workload=Workload)
    await world.settle()
    assert world.verdict(key, "WorkloadReady") == (status, reason)
    assert "The image can't be pulled." in world.message(key, "WorkloadReady")
    stalled = reason in {"WorkloadFailed", "CredentialsMissing", "WorkloadNotRunnable"}
    assert world.verdict(key, "Stalled")[0] == ("True" if stalled else "")


@pytest.mark.parametrize(
    ("phase", "within_s"),
    [(Phase.PROGRESSING, 6), (Phase.CREDENTIALS_MISSING, 6), (Phase.FAILED, 31)],
    ids=["rolling out", "a key is missing", "failed"],
)
async def test_what_pods_lack_next_is_found_although_no_event_tells(
    world: Any, phase: Phase, within_s: int
) -> None:
    """Of two ConfigMaps that are missing, pods name the second only when the first is there."""
    world.deployments.phase["guard"] = (phase, "One is missing.")
    key = world.extension("guard", workload=Workload)
    await world.settle()
    world.deployments.phase["guard"] = (phase, "Another is missing.")
    await world.advance(within_s)
    assert "Another is missing." in world.message(key, "WorkloadReady")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(DeploymentError("quota"), "WorkloadProgressing", id="may succeed later"),
        pytest.param(DeploymentError("taken", retryable=False), "WorkloadFailed", id="needs a person"),
    ],
)
async def test_a_workload_that_is_refused(world: Any, error: DeploymentError, reason: str) -> None:
    world.deployments.fail = error
    key = world.extension("guard", workload=Workload)
    await world.settle()
    assert world.verdict(key, "WorkloadReady") == ("False", reason)
    assert str(error) in world.message(key, "WorkloadReady")
    assert world.verdict(key, "Synced") == ("True", "Synced"), "the registry does not wait for the workload"


async def test_a_disabled_extension_is_ready_at_zero_replicas(world: Any) -> None:
    key = world.extension("guard", workload=Workload, enabled=False)
    await world.settle()
    world.report()
    await world.settle()
    assert world.deployments.running["default", "guard"].replicas == 0
    assert world.verdict(key, "WorkloadReady") == ("True", "WorkloadScaledToZero")
    assert world.verdict(key, "Ready") == ("True", "Disabled")
    assert (await world.rows())["guard"].enabled is False


async def test_suspend_changes_nothing_but_ready(world: Any) -> None:
    key = world.extension("guard", workload=Workload, timeoutMs=100)
    await world.settle()
    world.report()
    await world.settle()
    deployed = len(world.deployments.deployed)
    world.extension("guard", workload={"image": "other:2"}, timeoutMs=200, suspend=True)
    await world.settle()
    assert world.verdict(key, "Ready") == ("True", "Suspended"), "it is left as it is, as asked"
    assert world.store.condition(key, "Synced")["observedGeneration"] == 1, "still speaks of what is served"
    assert (await world.rows())["guard"].timeout_ms == 100
    assert len(world.deployments.deployed) == deployed
    world.extension("guard", workload={"image": "other:2"}, timeoutMs=200)
    await world.settle()
    assert (await world.rows())["guard"].timeout_ms == 200


@pytest.mark.parametrize("reason", ["MatchesNothing", "Overridden"])
async def test_a_policy_that_no_request_reaches_says_so(world: Any, reason: str) -> None:
    world.extension("gpt")
    key = world.policy("gpt")
    await world.settle()
    notice = Notice(kind="RoutingPolicy", id="default", reason=reason, message="no request", other_id="broad")
    world.report(notices=[notice])
    await world.settle()
    assert world.verdict(key, "Ready") == ("True", reason)
    assert world.store.get(key).status["warnings"] == ["no request"]


async def test_a_complex_policy_is_warned_about_with_its_score(world: Any) -> None:
    names = [f"p{number}" for number in range(5)]
    for name in names:
        world.extension(name)
    fallback = [{"extensionRef": {"name": name}} for name in names[1:]]
    key = world.policy(names[0], fallback=fallback)
    await world.settle()
    assert world.store.get(key).status["complexity"] == 13
    assert "complexity 13 is above 10" in world.store.get(key).status["warnings"][0]
    assert world.store.get(key).status["providers"] == "p0"


async def test_a_transition_time_moves_only_with_the_status(world: Any) -> None:
    key = world.extension(timeoutMs=100)
    await world.settle()
    before = world.store.condition(key, "Accepted")["lastTransitionTime"]
    await world.advance(90)
    world.extension(timeoutMs=200)
    await world.settle()
    after = world.store.condition(key, "Accepted")
    assert after["observedGeneration"] == 2
    assert after["lastTransitionTime"] == before
