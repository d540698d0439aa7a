"""Versions side by side: who is one, how requests are divided, and what each version has of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from beamline_router.core import selection
from beamline_router.core.ports import TransportFault
from beamline_router.core.snapshot import compile_snapshot
from beamline_router.fakes import After, FakeRng
from harness.router_world import PASS, World, check, extension, policy, provider, providers, request, says


def version(
    world: World, extension_id: str, kind: str = "provider", *, of: str = "main", **more: Any
) -> None:
    """Adds a version of ``of`` that answers with its own id."""
    world.have(extension_id, kind, **{"versionOf": of, "version": "v2", **more})
    world.answers(extension_id, PASS if kind == "validator" else says(extension_id))


async def shares(world: World, count: int = 200, **changes: Any) -> Counter[str]:
    """Who answered, of ``count`` requests with evenly spread randomness."""
    found: Counter[str] = Counter()
    for number in range(count):
        world.rng._floats = [(number + 0.5) / count]
        found[(await world.answer(request_id=f"r-{number}", **changes)).provider_id] += 1
    return found


async def test_a_step_that_names_the_base_is_divided_among_its_versions_by_weight(world: World) -> None:
    world.have("main", "provider", weight=75)
    version(world, "main_v2", weight=25)
    world.route(provider())
    assert await shares(world) == {"main": 150, "main_v2": 50}


async def test_a_step_that_names_a_version_meets_that_version_only(world: World) -> None:
    version(world, "main_v2")
    world.route(provider("main_v2"))
    assert await shares(world, 10) == {"main_v2": 10}


async def test_the_trail_says_which_version_ran(world: World) -> None:
    world.have("main", "provider", weight=0)
    version(world, "main_v2")
    world.route(provider())
    (entry,) = (await world.answer()).trail
    assert (entry.extension_id, entry.version) == ("main_v2", "v2")
    assert entry.to_wire()["version"] == "v2"


async def test_without_versions_the_trail_states_none(world: World) -> None:
    world.have("main", "provider", version="v1")
    world.route(provider())
    assert "version" not in (await world.answer()).trail[0].to_wire()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"versionOf": "nobody"}, id="its base does not exist"),
        pytest.param({"versionOf": "check"}, id="its base has another type"),
        pytest.param({"namespace": "elsewhere"}, id="its base stands in another namespace"),
        pytest.param({"enabled": False}, id="it is disabled"),
        pytest.param({"weight": 0}, id="its weight is 0"),
        pytest.param({"versionOf": "main_v2"}, id="it names itself"),
    ],
)
async def test_a_version_takes_no_traffic_where(world: World, changes: dict[str, Any]) -> None:
    version(world, "main_v2", **changes)
    world.route(provider())
    assert await shares(world, 20) == {"main": 20}


async def test_a_version_of_a_version_takes_no_traffic_of_either(world: World) -> None:
    version(world, "main_v2")
    version(world, "main_v3", of="main_v2")
    world.route(provider())
    assert set(await shares(world, 20)) == {"main", "main_v2"}
    world.route(provider("main_v2"))
    assert set(await shares(world, 20)) == {"main_v2"}


async def test_a_disabled_base_takes_its_versions_out_with_it(world: World) -> None:
    world.have("main", "provider", enabled=False)
    version(world, "main_v2")
    world.route(provider(fallback=["second"]))
    assert (await world.answer()).provider_id == "second"


async def test_weights_that_are_all_zero_leave_everything_to_the_base(world: World) -> None:
    world.have("main", "provider", weight=0)
    version(world, "main_v2", weight=0)
    world.route(provider())
    assert await shares(world, 10) == {"main": 10}


async def test_a_version_whose_breaker_is_open_leaves_its_share_to_the_others(world: World) -> None:
    world.route(provider())
    version(world, "main_v2")
    world.route(provider("main_v2"))
    await world.open_breaker("main_v2")
    world.route(provider())
    assert await shares(world, 20) == {"main": 20}
    assert world.runtime.breaker_states() == {"main_v2": "open", "main": "closed"}


@pytest.mark.parametrize(
    ("sticky", "same", "other"),
    [
        pytest.param("tenant", {"tenant_id": "acme"}, "tenant_id", id="tenant"),
        pytest.param("header:X-User", {"headers": {"x-user": "ann"}}, "headers", id="header"),
    ],
)
async def test_a_sticky_key_always_meets_the_same_version(
    world: World, sticky: str, same: dict[str, Any], other: str
) -> None:
    world.have("main", "provider", weight=50, stickyKey=sticky)
    version(world, "main_v2", weight=50)
    world.route(provider())
    assert len(await shares(world, 40, **same)) == 1
    met: Counter[str] = Counter()
    for number in range(200):
        key: Any = f"k{number}" if other == "tenant_id" else {"x-user": f"k{number}"}
        met[(await world.answer(**{other: key})).provider_id] += 1
    assert min(met.values()) > 60


async def test_versions_whose_long_names_begin_alike_divide_the_keys_all_the_same(world: World) -> None:
    name = "x" * 59
    world.have(name, "provider", stickyKey="tenant")
    world.have(f"{name}_v2", "provider", versionOf=name)
    for called in (name, f"{name}_v2"):
        world.answers(called, says())
    world.route(provider(name))
    met = Counter([(await world.answer(tenant_id=f"t{number}")).provider_id for number in range(100)])
    assert min(met[name], met[f"{name}_v2"]) > 25


async def test_keys_that_a_sticky_provider_choice_gave_to_the_base_are_divided_anew(world: World) -> None:
    world.have("main", "provider", weight=50, stickyKey="tenant")
    version(world, "main_v2", weight=50)
    world.route(providers({"main": 1, "second": 1}, strategy="sticky", sticky_key="tenant"))
    met: Counter[str] = Counter()
    for number in range(300):
        met[(await world.answer(tenant_id=f"t{number}")).provider_id] += 1
    assert 110 < met["second"] < 190
    assert min(met["main"], met["main_v2"]) > 50


async def test_a_sticky_provider_choice_does_not_move_when_a_version_is_added(world: World) -> None:
    step = providers({"main": 1, "second": 1}, strategy="sticky", sticky_key="tenant")
    world.route(step)
    before = {t: (await world.answer(tenant_id=t)).provider_id for t in map(str, range(60))}
    version(world, "main_v2")
    world.route(step)
    after = {t: (await world.answer(tenant_id=t)).provider_id for t in before}
    assert [t for t in before if (before[t] == "second") != (after[t] == "second")] == []


async def test_each_version_has_its_own_bulkhead_load_and_latency(world: World) -> None:
    world.have("main", "provider", concurrency=3)
    version(world, "main_v2", concurrency=7)
    world.route(provider())
    base = world.snapshot.policy("only").route.provider.candidates[0]  # type: ignore[union-attr]
    assert [(leaf.extension_id, leaf.concurrency) for leaf in base.versions] == [("main", 3), ("main_v2", 7)]
    world.rng._floats = [0.99]
    await world.answer()
    assert world.runtime.load("main").last_at == 0.0
    assert world.runtime.load("main_v2").last_at > 0


async def test_least_inflight_looks_at_the_version_that_was_drawn(world: World) -> None:
    world.have("main", "provider", weight=0)
    version(world, "main_v2")
    world.route(providers({"main": 2, "second": 1}, strategy="least_inflight"))
    world.runtime.load("main").in_flight = 50
    assert (await world.answer()).provider_id == "main_v2"
    world.runtime.load("main_v2").in_flight = 50
    assert (await world.answer()).provider_id == "second"


async def test_what_a_step_lays_over_the_base_is_laid_over_every_version(world: World) -> None:
    version(world, "main_v2", config={"model": "new"})
    world.route(provider(config={"temperature": 0}, timeout_ms=77, circuit_breaker={"failure_threshold": 2}))
    step = world.snapshot.policy("only").route.provider  # type: ignore[union-attr]
    one, two = step.candidates[0].versions
    assert [call.timeout_s for call in (one, two)] == [0.077, 0.077]
    assert two.config == {"model": "new", "temperature": 0}
    assert two.breaker_key == "main_v2@only/0"


async def test_validators_are_divided_too_and_say_so(world: World) -> None:
    world.have("check", "validator", weight=0)
    version(world, "check_v2", "validator", of="check")
    world.route(check(), check(mode="shadow"), provider())
    answer = await world.answer()
    await world.clock.advance(1)
    assert [(e.extension_id, e.version) for e in answer.trail[:2]] == [("check_v2", "v2")] * 2


async def test_a_version_that_fails_leads_to_the_fallback_and_not_to_its_sibling(world: World) -> None:
    world.have("main", "provider", weight=0)
    version(world, "main_v2")
    world.answers("main_v2", TransportFault.NO_RESPONDERS)
    world.route(provider(fallback=["main", "second"]))
    answer = await world.answer()
    assert [entry.extension_id for entry in answer.trail] == ["main_v2", "second"]


def test_a_new_version_recompiles_the_policies_that_name_its_base_and_no_others() -> None:
    records = [extension("main", "provider"), extension("second", "provider")]
    policies = [policy("one", [provider()]), policy("two", [provider("second")])]
    first = compile_snapshot(records, policies, revision=1, previous=None).snapshot
    records.append(extension("main_v2", "provider", versionOf="main", version="v2"))
    second = compile_snapshot(records, policies, revision=2, previous=first).snapshot
    third = compile_snapshot(records, policies, revision=3, previous=second).snapshot
    assert second.policy("one") is not first.policy("one")
    assert second.policy("two") is first.policy("two")
    assert third.policy("one") is second.policy("one")
    fourth = compile_snapshot(records[:2], policies, revision=4, previous=third).snapshot
    assert fourth.policy("one").route.provider.candidates[0].versions == ()  # type: ignore[union-attr]


def test_a_version_that_changes_recompiles_the_policy_of_its_base() -> None:
    records = [
        extension("main", "provider"),
        extension("main_v2", "provider", versionOf="main", version="v2"),
    ]
    policies = [policy("one", [provider()])]
    first = compile_snapshot(records, policies, revision=1, previous=None).snapshot
    records[1] = replace(records[1], weight=7, generation=2)
    second = compile_snapshot(records, policies, revision=2, previous=first).snapshot
    assert [leaf.share for leaf in second.policy("one").route.provider.candidates[0].versions] == [100, 7]  # type: ignore[union-attr]


# --- the weights of providers


async def test_where_no_provider_with_weight_can_be_called_they_all_take_part_all_the_same(
    world: World,
) -> None:
    world.lack("main")
    world.lack("second")
    world.route(providers({"main": 1, "second": 1, "third": 0}, strategy="weighted"))
    failure = await world.failure()
    assert failure.error.code == "NOT_FOUND"
    assert failure.trail[0].extension_id in {"main", "second"}


def test_a_provider_that_is_unknown_takes_part_only_where_no_other_with_weight_is_left() -> None:
    records = [extension("b", "provider"), extension("c", "provider")]
    step = providers({"a": 1, "b": 1, "c": 0})
    snapshot = compile_snapshot(records, [policy("p", [step])], revision=1, previous=None).snapshot
    calls = snapshot.policy("p").route.provider.candidates  # type: ignore[union-attr]
    assert [call.extension_id for call in selection.eligible(calls, lambda _: False)] == ["b"]
    only_unknown = [calls[0], calls[2]]
    assert [call.extension_id for call in selection.eligible(only_unknown, lambda _: True)] == ["a"]


# --- bulkheads of steps


async def test_a_step_with_a_bulkhead_of_its_own_is_refused_when_that_is_full(world: World) -> None:
    world.answers("main", After(0.5, says()))
    world.route(provider(concurrency=1, fallback=["second"]))
    running = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    answer = await world.answer()
    assert answer.provider_id == "second"
    assert answer.trail[0].reason == "RESOURCE_EXHAUSTED"
    await world.clock.advance(1)
    assert running.done()
    assert world.runtime.load("main@only/0").in_flight == 0
    assert (await world.answer()).provider_id == "main"


async def test_the_extensions_own_bulkhead_holds_for_a_step_with_a_wider_one(world: World) -> None:
    world.have("main", "provider", concurrency=1)
    world.route(provider(concurrency=50, fallback=["second"]))
    world.runtime.load("main").in_flight = 1
    assert (await world.answer()).provider_id == "second"
    assert world.runtime.load("main@only/0").in_flight == 0


async def test_the_bulkhead_of_a_step_that_is_gone_is_forgotten(world: World) -> None:
    world.route(provider(concurrency=5))
    await world.answer()
    assert "main@only/0" in world.runtime._loads
    world.route(provider())
    assert "main@only/0" not in world.runtime._loads


def test_randomness_is_only_drawn_where_it_decides(world: World) -> None:
    """A sticky version must not use up randomness that weights or jitter would see."""
    world.rng = FakeRng(0.1, 0.2)
    world.__post_init__()
    world.have("main", "provider", stickyKey="tenant")
    version(world, "main_v2")
    world.route(provider())
    base = world.snapshot.policy("only").route.provider.candidates[0]  # type: ignore[union-attr]
    assert base.version_key == "tenant"
    assert selection.version(base, lambda _: True, key="a", random=0.0) in base.versions
