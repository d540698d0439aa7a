"""States of a RoutingPolicy, made by the operator's own core."""

from __future__ import annotations

from typing import Any

from beamline_contract.conditions import Reason
from beamline_contract.reports import Notice
from beamline_registry.port import RegistryUnavailableError
from harness.gitops_verdicts import case


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


@case("a policy without routers", "InProgress", "Progressing", Reason.NO_ROUTERS)
async def policy_without_routers(world: Any) -> Any:
    world.extension("gpt")
    key = world.policy("gpt")
    await world.settle()
    return key


@case("a policy that was never seen", "Current", "Progressing", None)
async def policy_never_seen(world: Any) -> Any:
    return world.policy("gpt")


@case("a policy that every router serves", "Current", "Healthy", Reason.READY)
async def policy_served(world: Any) -> Any:
    world.extension("gpt")
    return await _policy(world)


@case("a policy of a generation that was not seen", "InProgress", "Progressing", Reason.READY)
async def policy_newer_generation(world: Any) -> Any:
    await policy_served(world)
    return world.policy("gpt", priority=7)


@case("a policy that some routers serve", "InProgress", "Progressing", Reason.PROGRAMMING)
async def policy_half_served(world: Any) -> Any:
    key = await policy_served(world)
    world.report("r2", revision=0)
    await world.settle()
    return key


@case("a policy that a router refuses", "Failed", "Degraded", Reason.REFUSED)
async def policy_refused(world: Any) -> Any:
    world.extension("gpt")
    key = await _policy(world)
    refusal = {"kind": "RoutingPolicy", "id": "default", "generation": 1, "field": "spec", "reason": "x"}
    world.report(refused=[refusal])
    await world.settle()
    return key


@case("an invalid policy", "Failed", "Degraded", Reason.INVALID)
async def policy_invalid(world: Any) -> Any:
    world.extension("gpt")
    return await _policy(world, priority="high")


@case("a policy whose name another holds", "Failed", "Degraded", Reason.CONFLICTED)
async def policy_conflicted(world: Any) -> Any:
    world.extension("gpt")
    await _policy(world)
    world.clock.advance(5)
    key = world.policy("gpt", namespace="later")
    await world.settle()
    return key


@case("a suspended policy", "Current", "Suspended", Reason.SUSPENDED)
async def policy_suspended(world: Any) -> Any:
    return await _policy(world, suspend=True)


@case("a policy being deleted while the registry is away", "Terminating", "Progressing", Reason.DELETING)
async def policy_deleting(world: Any) -> Any:
    key = await policy_served(world)
    world.registry.outage = RegistryUnavailableError("gone")
    world.store.delete(key)
    await world.settle()
    return key


@case("a policy while the registry is away", "InProgress", "Progressing", Reason.REGISTRY_UNAVAILABLE)
async def policy_registry_away(world: Any) -> Any:
    world.extension("gpt")
    await world.settle()
    world.registry.outage = RegistryUnavailableError("gone")
    return await _policy(world)
