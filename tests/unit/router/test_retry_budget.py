"""Retry budgets of extensions, policies and steps: compiled, used, kept over swaps, forgotten with them."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_router.core.explain import explain
from beamline_router.core.retry import BudgetSettings, RetryBudget
from beamline_router.core.snapshot import compile_snapshot
from harness.router_world import World, extension, fails, policy, provider, request


async def calls_in_an_outage(world: World, requests: int = 12) -> int:
    world.have("main", "provider", retry=1, circuitBreaker={"failureThreshold": 10_000})
    world.answers("main", fails("UNAVAILABLE"))
    for _ in range(requests):
        await world.failure()
    return world.calls("main")


@pytest.mark.parametrize(
    ("budget", "retries"),
    [
        pytest.param(None, 2, id="10 tokens and more than 5 of them by default"),
        pytest.param({"tokens": 4, "threshold": 0}, 2, id="a small one that may be used up"),
        pytest.param({"tokens": 1, "threshold": 0}, 0, id="a single token, which the failure itself takes"),
        pytest.param({"tokens": 1_000, "threshold": 0}, 12, id="one that no outage of twelve exhausts"),
    ],
)
async def test_in_an_outage_a_budget_allows(
    world: World, budget: dict[str, Any] | None, retries: int
) -> None:
    world.have("main", "provider", retry=1, circuitBreaker={"failureThreshold": 10_000})
    world.route(provider(), **({} if budget is None else {"retry_budget": budget}))
    assert await calls_in_an_outage(world) == 12 + retries


async def test_a_success_refills_by_what_the_policy_says(world: World) -> None:
    world.have("main", "provider", retry=1)
    world.route(provider(), retry_budget={"tokens": 2, "refill": 0.5, "threshold": 1})
    world.answers("main", fails("UNAVAILABLE", retryable=False), {"output": "x"})
    await world.failure()
    call = world.snapshot.policy("only").route.provider.candidates[0]  # type: ignore[union-attr]
    assert world.runtime.budget(call).tokens == 1.0
    await world.answer()
    assert world.runtime.budget(call).tokens == 1.5
    assert world.runtime.load("main").budget.tokens == 10.0


async def test_a_policy_without_one_uses_the_extensions(world: World) -> None:
    world.route(provider())
    call = world.snapshot.policy("only").route.provider.candidates[0]  # type: ignore[union-attr]
    assert world.runtime.budget(call) is world.runtime.load("main").budget


TWO_RETRIES: dict[str, Any] = {"tokens": 4, "threshold": 0}
NONE: dict[str, Any] = {"tokens": 1, "threshold": 0}


@pytest.mark.parametrize(
    ("extensions", "policys", "step", "whose"),
    [
        (TWO_RETRIES, None, None, "extension"),
        (NONE, TWO_RETRIES, None, "policy"),
        (NONE, NONE, TWO_RETRIES, "step"),
        (None, None, None, "default"),
    ],
    ids=["the extension states one", "the policy wins over it", "the step wins over both", "nobody"],
)
async def test_whose_budget_holds(world: World, extensions: Any, policys: Any, step: Any, whose: str) -> None:
    own = {} if extensions is None else {"retryBudget": extensions}
    world.have("main", "provider", retry=1, circuitBreaker={"failureThreshold": 10_000}, **own)
    asked = provider(**({} if step is None else {"retry_budget": step}))
    world.route(asked, **({} if policys is None else {"retry_budget": policys}))
    world.answers("main", fails("UNAVAILABLE"))
    for _ in range(12):
        await world.failure()
    assert world.calls("main") == 12 + 2
    told = explain(request(), world.snapshot)["steps"][0]["providers"][0]
    assert told["from"]["retry_budget"] == whose


async def test_the_budget_that_an_extension_states_is_one_for_all_policies_and_survives_a_swap(
    world: World,
) -> None:
    world.have("main", "provider", retryBudget={"tokens": 8})
    world.route(provider())
    call = world.snapshot.policy("only").route.provider.candidates[0]  # type: ignore[union-attr]
    bucket = world.runtime.budget(call)
    world.route(provider("second", fallback=["main"]))
    other = world.snapshot.policy("only").route.provider.fallback[0]  # type: ignore[union-attr]
    assert world.runtime.budget(other) is bucket
    world.have("main", "provider")
    world.route(provider())
    assert world.runtime._budgets == {}


async def test_new_settings_keep_what_is_left_and_a_policy_that_states_none_forgets_it(world: World) -> None:
    world.route(provider(), retry_budget={"tokens": 8})
    call = world.snapshot.policy("only").route.provider.candidates[0]  # type: ignore[union-attr]
    bucket = world.runtime.budget(call)
    bucket.failed()
    world.route(provider(), retry_budget={"tokens": 6})
    assert (bucket.tokens, bucket.settings.capacity) == (6.0, 6_000)
    world.route(provider())
    assert world.runtime._budgets == {}


def test_a_bucket_is_never_fuller_than_full() -> None:
    budget = RetryBudget(BudgetSettings.of(1, 0.75, 0))
    budget.failed()
    budget.succeeded()
    budget.succeeded()
    assert budget.tokens == 1.0


@pytest.mark.parametrize(
    ("stated", "field"),
    [
        pytest.param([], "spec.retryBudget", id="no object"),
        pytest.param({"tokens": 0}, "spec.retryBudget.tokens", id="no tokens"),
        pytest.param({"tokens": 5}, "spec.retryBudget.threshold", id="a threshold that is never passed"),
        pytest.param({"refill": 0}, "spec.retryBudget.refill", id="no refill"),
        pytest.param({"refill": float("nan")}, "spec.retryBudget.refill", id="a refill that is no number"),
        pytest.param({"refill": True}, "spec.retryBudget.refill", id="a refill that is a bool"),
        pytest.param({"threshold": 1.5}, "spec.retryBudget.threshold", id="half a token as threshold"),
    ],
)
def test_the_compiler_refuses(stated: Any, field: str) -> None:
    result = compile_snapshot([], [policy("p", [provider()], retry_budget=stated)], revision=1, previous=None)
    assert [refused.field for refused in result.refused] == [field]


def test_the_compiler_refuses_one_of_an_extension_and_of_a_step_by_their_fields() -> None:
    bad = {"tokens": 0}
    result = compile_snapshot(
        [extension("main", "provider", retryBudget=bad)],
        [policy("p", [provider(retry_budget=bad)])],
        revision=1,
        previous=None,
    )
    assert [refused.field for refused in result.refused] == [
        "spec.retryBudget.tokens",
        "spec.steps[0].retryBudget.tokens",
    ]
