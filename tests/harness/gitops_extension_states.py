"""States of an Extension, made by the operator's own core."""

from __future__ import annotations

from typing import Any

from beamline_contract.conditions import Reason
from beamline_contract.reports import HealthDelta, RouterHealth
from beamline_registry.port import RegistryUnavailableError
from beamline_sdk.deployment.port import DeploymentError, Phase
from harness.gitops_verdicts import WORKLOAD, case


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


@case("suspended from its first day", "Current", "Suspended", Reason.SUSPENDED)
async def suspended(world: Any) -> Any:
    key = world.extension(suspend=True)
    await world.settle()
    return key


@case("suspended while it was ready", "Current", "Suspended", Reason.SUSPENDED)
async def suspended_ready(world: Any) -> Any:
    await served(world)
    key = world.extension(suspend=True, timeoutMs=7)
    await world.settle()
    return key


@case("suspended while it was not ready", "Failed", "Suspended", Reason.SUSPENDED)
async def suspended_unready(world: Any) -> Any:
    await refused(world)
    world.extension(suspend=True)
    await world.settle()
    key = world.extension(suspend=True, timeoutMs=7)
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


@case("an Extension that asks for no replica", "Current", "Healthy", Reason.READY)
async def no_replica(world: Any) -> Any:
    key = world.extension(workload={**WORKLOAD, "replicas": 0})
    await world.settle()
    world.report()
    await world.settle()
    return key


@case("a new try after a roll-back", "InProgress", "Progressing", Reason.WORKLOAD_PROGRESSING)
async def tried_again(world: Any) -> Any:
    await workload_rolled_back(world)
    world.deployments.phase["guard"] = (Phase.PROGRESSING, "")
    key = world.extension(workload={**WORKLOAD, "image": "x:3", "rollback": "auto"})
    await world.settle()
    return key


@case("a workload that the API server refuses", "Failed", "Degraded", Reason.WORKLOAD_FAILED)
async def workload_refused(world: Any) -> Any:
    world.deployments.fail = DeploymentError("the API server refuses the workload: no", retryable=False)
    key = world.extension(workload=WORKLOAD)
    await world.settle()
    return key


@case("a suspended canary", "Current", "Suspended", Reason.SUSPENDED)
async def canary_suspended(world: Any) -> Any:
    await _canary(world)
    canary = {"steps": [{"weight": 10, "pauseSeconds": 30}], "gates": {"minSamples": 5}}
    key = world.extension("guard-v2", version="v2", versionOf="guard", canary=canary, suspend=True)
    await world.settle()
    return key


@case("a configuration that the running extension refuses", "InProgress", "Degraded", Reason.CONFIG_INVALID)
async def config_invalid(world: Any) -> Any:
    key = world.extension("gpt", config={"latency_ms": -1})
    world.hints.schemas[world.store.get(key).subject] = {"properties": {"latency_ms": {"minimum": 0}}}
    world.report()
    await world.settle()
    world.report()
    await world.settle()
    return key
