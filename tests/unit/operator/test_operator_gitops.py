"""What Flux and Argo CD make of every state that the operator brings an object into.

The states are made by the operator's own core, not written down. Argo CD's verdict comes from the script that
people install, run by a Lua runtime; Flux's from the rules of kstatus, written down here as they are in its
source (kubernetes-sigs/cli-utils, pkg/kstatus/status: generic.go and status.go).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lupa
import pytest

from beamline_contract.conditions import ConditionType, Reason
from beamline_contract.reports import HealthDelta, Notice, RouterHealth
from beamline_registry.port import RegistryUnavailableError
from beamline_sdk.deployment.port import DeploymentError, Phase

HEALTH_LUA = Path(__file__).resolve().parents[3] / "deploy" / "argocd" / "health.lua"


def kstatus(document: dict[str, Any]) -> str:
    """checkGenericProperties, then checkReadyCondition, then "no known conditions means current"."""
    if document["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = document.get("status") or {}
    observed = status.get("observedGeneration")
    if observed is not None and observed != document["metadata"]["generation"]:
        return "InProgress"
    conditions = status.get("conditions") or []
    for condition in conditions:
        if (condition["type"], condition["status"]) == ("Reconciling", "True"):
            return "InProgress"
        if (condition["type"], condition["status"]) == ("Stalled", "True"):
            return "Failed"
    for condition in conditions:
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"


def argo(document: dict[str, Any]) -> tuple[str, str]:
    """(status, message) of the script, run as Argo CD runs it: with the object as the global ``obj``."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = _table(lua, document)
    answer = lua.execute(HEALTH_LUA.read_text())
    return str(answer["status"]), str(answer["message"])


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({name: _table(lua, child) for name, child in value.items()})
    if isinstance(value, list):
        return lua.table_from([_table(lua, child) for child in value])
    return value


def shown(world: Any, key: Any) -> dict[str, Any]:
    """The object as the API server shows it."""
    stored = world.store.get(key)
    metadata: dict[str, Any] = {"name": key.name, "generation": stored.metadata.generation}
    if stored.metadata.deleting:
        metadata["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    spec = stored.spec if isinstance(stored.spec, dict) else stored.spec.to_manifest()
    document = {"kind": key.kind, "metadata": metadata, "spec": spec}
    return {**document, "status": dict(stored.status)} if stored.status else document


WORKLOAD = {"image": "x:1"}
Prepare = Callable[[Any], Awaitable[Any]]


def case(name: str, flux: str, health: str, reason: Reason | None) -> Any:
    return lambda prepare: CASES.append(pytest.param(prepare, flux, health, reason, id=name)) or prepare


CASES: list[Any] = []


@case("never seen", "Current", "Progressing", None)
async def never_seen(world: Any) -> Any:
    return world.extension()


@case("a generation that was not seen", "InProgress", "Progressing", Reason.NO_ROUTERS)
async def newer_generation(world: Any) -> Any:
    key = world.extension()
    await world.settle()
    return world.extension(timeoutMs=5) or key


@case("no routers", "InProgress", "Progressing", Reason.NO_ROUTERS)
async def no_routers(world: Any) -> Any:
    key = world.extension()
    await world.settle()
    return key


@case("served by every router", "Current", "Healthy", Reason.READY)
async def served(world: Any) -> Any:
    key = await no_routers(world)
    world.report()
    await world.settle()
    return key


@case("served by some routers", "InProgress", "Progressing", Reason.PROGRAMMING)
async def half_served(world: Any) -> Any:
    key = await served(world)
    world.report("r2", revision=0)
    await world.settle()
    return key


@case("refused by a router", "Failed", "Degraded", Reason.REFUSED)
async def refused(world: Any) -> Any:
    key = await no_routers(world)
    refusal = {"kind": "Extension", "id": "guard", "generation": 1, "field": "spec", "reason": "x"}
    world.report(refused=[refusal])
    await world.settle()
    return key


@case("invalid", "Failed", "Degraded", Reason.INVALID)
async def invalid(world: Any) -> Any:
    key = world.extension(timeoutMs=-1)
    await world.settle()
    return key


@case("conflicted", "Failed", "Degraded", Reason.CONFLICTED)
async def conflicted(world: Any) -> Any:
    world.extension("first", subject="acme.guard.v1")
    world.clock.advance(5)
    key = world.extension("second", subject="acme.guard.v1")
    await world.settle()
    return key


@case("suspended", "InProgress", "Suspended", Reason.SUSPENDED)
async def suspended(world: Any) -> Any:
    key = world.extension(suspend=True)
    await world.settle()
    return key


@case("disabled", "Current", "Healthy", Reason.DISABLED)
async def disabled(world: Any) -> Any:
    key = world.extension(enabled=False)
    world.report()
    await world.settle()
    world.report()
    await world.settle()
    return key


@case("being deleted while the registry is away", "Terminating", "Progressing", Reason.DELETING)
async def deleting(world: Any) -> Any:
    key = await served(world)
    world.registry.outage = RegistryUnavailableError("gone")
    world.store.delete(key)
    await world.settle()
    return key


@case("registry away", "InProgress", "Progressing", Reason.REGISTRY_UNAVAILABLE)
async def registry_away(world: Any) -> Any:
    world.registry.outage = RegistryUnavailableError("gone")
    key = world.extension()
    await world.settle()
    return key


@case("workload rolling out", "InProgress", "Progressing", Reason.WORKLOAD_PROGRESSING)
async def rolling_out(world: Any) -> Any:
    world.deployments.phase["guard"] = (Phase.PROGRESSING, "")
    key = world.extension(workload=WORKLOAD)
    world.report()
    await world.settle()
    return key


@case("workload failed", "Failed", "Degraded", Reason.WORKLOAD_FAILED)
async def workload_failed(world: Any) -> Any:
    world.deployments.phase["guard"] = (Phase.FAILED, "The image can't be pulled.")
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    return key


@case("a foreign object in the workload's place", "Failed", "Degraded", Reason.CONFLICTED)
async def foreign_object(world: Any) -> Any:
    world.deployments.fail = DeploymentError("Deployment a/b exists", retryable=False, conflict=True)
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    return key


@case("credentials missing", "Failed", "Degraded", Reason.CREDENTIALS_MISSING)
async def credentials_missing(world: Any) -> Any:
    world.deployments.phase["guard"] = (Phase.CREDENTIALS_MISSING, "OPENAI_API_KEY is not set.")
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    return key


@case("a workload that can't run here", "Failed", "Degraded", Reason.WORKLOAD_NOT_RUNNABLE)
async def not_runnable(world: Any) -> Any:
    world.deployments.phase["guard"] = (Phase.NOT_RUNNABLE, "An image without a command.")
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    return key


@case("a workload that was rolled back", "Failed", "Degraded", Reason.WORKLOAD_ROLLED_BACK)
async def workload_rolled_back(world: Any) -> Any:
    world.extension(workload={**WORKLOAD, "rollback": "auto"})
    world.report()
    await world.settle()
    world.deployments.phase["guard"] = (Phase.FAILED, "The image can't be pulled.")
    key = world.extension(workload={**WORKLOAD, "image": "x:2", "rollback": "auto"})
    await world.settle()
    return key


async def _canary(world: Any, **gates: Any) -> Any:
    """A canary in its first step, served by a router."""
    world.extension()
    canary = {"steps": [{"weight": 10, "pauseSeconds": 30}], "gates": {"minSamples": 5, **gates}}
    key = world.extension("guard-v2", version="v2", versionOf="guard", canary=canary)
    await world.settle()
    world.report()
    await world.settle()
    return key


async def _calls(world: Any, success: int = 0, failure: int = 0) -> None:
    delta = HealthDelta(extension_id="guard_v2", success=success, failure=failure)
    world.controller.on_health(RouterHealth(instance="r1", sequence=1, deltas=[delta]))
    await world.advance(10)
    world.report()
    await world.settle()


@case("a canary that waits for its base", "InProgress", "Progressing", Reason.CANARY_WAITING)
async def canary_waiting(world: Any) -> Any:
    key = await _canary(world)
    world.extension(suspend=True)
    key = world.extension("guard-v2", version="v2", versionOf="guard", timeoutMs=7, canary={})
    await world.settle()
    world.report()
    await world.settle()
    return key


@case("a canary under way", "InProgress", "Progressing", Reason.CANARY_PROGRESSING)
async def canary_progressing(world: Any) -> Any:
    return await _canary(world)


@case("a canary without calls", "InProgress", "Suspended", Reason.CANARY_PAUSED)
async def canary_paused(world: Any) -> Any:
    key = await _canary(world)
    await world.advance(60)
    return key


@case("a canary that was promoted", "Current", "Healthy", Reason.READY)
async def canary_promoted(world: Any) -> Any:
    key = await _canary(world)
    await _calls(world, success=50)
    await world.advance(60)
    world.report()
    await world.settle()
    return key


@case("a canary that was rolled back", "Failed", "Degraded", Reason.CANARY_ROLLED_BACK)
async def canary_rolled_back(world: Any) -> Any:
    key = await _canary(world)
    await _calls(world, success=5, failure=5)
    return key


@case("a canary that was aborted", "Failed", "Degraded", Reason.CANARY_ABORTED)
async def canary_aborted(world: Any) -> Any:
    key = await _canary(world)
    world.store.annotate(key, {"beamline.io/abort": "now"})
    await world.settle()
    world.report()
    await world.settle()
    return key


async def _policy(world: Any, *names: str, **spec: Any) -> Any:
    key = world.policy(*(names or ("gpt",)), **spec)
    world.report()
    await world.settle()
    world.report()
    await world.settle()
    return key


@case("a reference that leads nowhere", "InProgress", "Degraded", Reason.REF_NOT_FOUND)
async def ref_not_found(world: Any) -> Any:
    return await _policy(world)


@case("a reference to a disabled Extension", "InProgress", "Degraded", Reason.REF_DISABLED)
async def ref_disabled(world: Any) -> Any:
    world.extension("gpt", enabled=False)
    return await _policy(world)


@case("a reference to a broken Extension", "InProgress", "Degraded", Reason.REF_NOT_ACCEPTED)
async def ref_not_accepted(world: Any) -> Any:
    world.extension("gpt", timeoutMs=-1)
    return await _policy(world)


@case("a reference that is not permitted", "Failed", "Degraded", Reason.REF_NOT_PERMITTED)
async def ref_not_permitted(world: Any) -> Any:
    world.extension("gpt", namespace="elsewhere")
    return await _policy(world)


@case("a reference of the wrong type", "Failed", "Degraded", Reason.REF_WRONG_TYPE)
async def ref_wrong_type(world: Any) -> Any:
    world.extension("gpt", type="pre")
    return await _policy(world)


async def _noticed(world: Any, reason: str) -> Any:
    world.extension("gpt")
    key = await _policy(world)
    notice = Notice(kind="RoutingPolicy", id="default", reason=reason, message="told", other_id="big")  # type: ignore[arg-type]  # one of the words
    world.report(notices=[notice])
    await world.settle()
    return key


@case("a policy that matches nothing", "Current", "Healthy", Reason.MATCHES_NOTHING)
async def matches_nothing(world: Any) -> Any:
    return await _noticed(world, "MatchesNothing")


@case("a policy that another takes over", "Current", "Healthy", Reason.OVERRIDDEN)
async def overridden(world: Any) -> Any:
    return await _noticed(world, "Overridden")


@case("a configuration that the running extension refuses", "InProgress", "Degraded", Reason.CONFIG_INVALID)
async def config_invalid(world: Any) -> Any:
    key = world.extension("gpt", config={"latency_ms": -1})
    world.hints.schemas[world.store.get(key).subject] = {"properties": {"latency_ms": {"minimum": 0}}}
    world.report()
    await world.settle()
    world.report()
    await world.settle()
    return key


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
