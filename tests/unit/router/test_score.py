"""The strategy ``score``: who is asked first, and what no hint can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_contract.model import InvalidObjectError
from beamline_contract.objects import parse_object
from beamline_router.core.explain import explain
from beamline_router.core.score import (
    ALIKE,
    NO_HINTS,
    UNKNOWN,
    Hints,
    Weights,
    expected_ms,
    read_hints,
    scores,
)
from beamline_router.core.snapshot import compile_snapshot
from harness.router_world import World, fails, policy, providers, request

numbers = st.floats(0, 1e6, allow_nan=False)
hints = st.builds(
    Hints,
    st.none() | st.floats(0, 1),
    st.none() | numbers,
    st.none() | st.floats(0, 600_000, allow_nan=False),
)
weights = st.builds(Weights, *[st.floats(0.01, 100)] * 3)
SMALL = 1e-9


@given(st.lists(hints, min_size=1, max_size=8), weights)
def test_every_score_is_a_share_and_a_mean_of_its_parts(candidates: list[Hints], by: Weights) -> None:
    for one in scores(candidates, by):
        parts = (one.quality, one.cost, one.latency)
        assert -SMALL <= min(parts) - SMALL <= one.total <= max(parts) + SMALL <= 1 + 2 * SMALL


@given(st.lists(hints, min_size=2, max_size=8), weights)
def test_who_is_at_least_as_good_in_everything_scores_no_less(candidates: list[Hints], by: Weights) -> None:
    found = scores(candidates, by)
    for a, score_a in zip(candidates, found, strict=True):
        for b, score_b in zip(candidates, found, strict=True):
            known = None not in {a.quality, a.cost, a.latency_ms, b.quality, b.cost, b.latency_ms}
            if known and a.quality >= b.quality and a.cost <= b.cost and a.latency_ms <= b.latency_ms:  # type: ignore[operator]  # known
                assert score_a.total >= score_b.total - SMALL


@given(st.lists(hints, min_size=1, max_size=6), weights, st.floats(0, 1), st.floats(0, 1))
def test_getting_better_never_costs_score(
    candidates: list[Hints], by: Weights, quality: float, share: float
) -> None:
    first = candidates[0]
    better = Hints(
        None if first.quality is None else max(first.quality, quality),
        None if first.cost is None else first.cost * share,
        None if first.latency_ms is None else first.latency_ms * share,
    )
    before = scores(candidates, by)[0].total
    assert scores([better, *candidates[1:]], by)[0].total >= before - SMALL


@given(st.lists(hints, min_size=1, max_size=6), weights, st.floats(0.001, 1000), st.randoms())
def test_units_and_order_do_not_matter(candidates: list[Hints], by: Weights, unit: float, rng: Any) -> None:
    plain = [one.total for one in scores(candidates, by)]
    dearer = [replace(one, cost=None if one.cost is None else one.cost * unit) for one in candidates]
    assert [one.total for one in scores(dearer, by)] == pytest.approx(plain)
    order = list(range(len(candidates)))
    rng.shuffle(order)
    mixed = [one.total for one in scores([candidates[at] for at in order], by)]
    assert mixed == pytest.approx([plain[at] for at in order])


def test_who_says_nothing_gets_half() -> None:
    assert [one.total for one in scores([NO_HINTS, NO_HINTS], ALIKE)] == [UNKNOWN, UNKNOWN]
    silent, cheap, dear = scores([NO_HINTS, Hints(cost=1), Hints(cost=9)], Weights(0, 1, 0))
    assert cheap.total > silent.total == UNKNOWN > dear.total


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"score": {"quality": 0.9, "cost": 3, "latencyMs": 800}}, Hints(0.9, 3.0, 800.0)),
        ({"score": {"quality": 0.9, "latency_ms": 800}}, Hints(0.9, None, 800.0)),
        ({"score": {"quality": 2, "cost": -1, "latencyMs": True}}, NO_HINTS),
        ({"score": {"quality": "good", "cost": float("nan"), "latencyMs": float("inf")}}, NO_HINTS),
        ({"score": "high"}, NO_HINTS),
        ({}, NO_HINTS),
    ],
    ids=["all three", "snake case", "out of bounds", "no numbers", "no object", "nothing"],
)
def test_hints_are_read_from_free_notes_with_care(metadata: dict[str, Any], expected: Hints) -> None:
    assert read_hints(metadata) == expected


def test_what_is_measured_takes_the_hints_place_and_fades_back_to_it() -> None:
    assert expected_ms(100, None, 0, 10) == 100
    assert expected_ms(None, 500, 99, 10) == 500
    assert expected_ms(100, 500, 0, 10) == 500
    assert expected_ms(100, 500, 1_000, 10) == pytest.approx(100)


def by(quality: float, cost: float, latency: float) -> dict[str, float]:
    return {"quality": quality, "cost": cost, "latency": latency}


def graded(world: World) -> None:
    world.have("main", "provider", metadata={"score": {"quality": 0.9, "cost": 30, "latencyMs": 900}})
    world.have("second", "provider", metadata={"score": {"quality": 0.5, "cost": 1, "latencyMs": 300}})
    world.have("third", "provider", metadata={"score": {"quality": 0.7, "cost": 10, "latencyMs": 500}})


@pytest.mark.parametrize(
    ("counts", "order"),
    [
        pytest.param(by(1, 0, 0), ["main", "third", "second"], id="quality alone"),
        pytest.param(by(0, 1, 0), ["second", "third", "main"], id="cost alone"),
        pytest.param(by(0, 0, 1), ["second", "third", "main"], id="latency alone"),
        pytest.param(by(20, 1, 1), ["main", "third", "second"], id="quality most"),
    ],
)
async def test_the_best_is_asked_first_and_the_others_follow_when_it_can_not_answer(
    world: World, counts: dict[str, float], order: list[str]
) -> None:
    graded(world)
    for provider_id in order[:2]:
        world.answers(provider_id, fails("UNAVAILABLE"))
    world.route(providers({"main": 1, "second": 1, "third": 1}, strategy="score", score=counts))
    answer = await world.answer()
    assert world.order() == order
    assert [entry.why for entry in answer.trail] == ["score"] * 3
    explained = explain(request(), world.snapshot)["steps"][0]
    assert explained["first"] == order[0]
    listed = {entry["extension_id"]: entry["score"]["total"] for entry in explained["providers"]}
    assert sorted(listed, key=lambda key: -listed[key]) == order


async def test_weight_zero_takes_no_traffic_and_explain_says_no_score(world: World) -> None:
    graded(world)
    world.route(providers({"main": 1, "second": 0}, strategy="score", score={"quality": 0}))
    await world.answer()
    assert world.order() == ["main"]
    explained = explain(request(), world.snapshot, world.runtime)["steps"][0]
    assert [entry["score"] is None for entry in explained["providers"]] == [False, True]
    assert explained["score_weights"] == {"quality": 0, "cost": 1, "latency": 1}


async def test_who_is_not_there_is_neither_asked_nor_compared_with(world: World) -> None:
    graded(world)
    world.have("main", "provider", enabled=False, metadata={"score": {"quality": 1}})
    world.route(providers({"main": 1, "second": 1, "third": 1}, strategy="score", score=by(1, 0, 0)))
    await world.answer()
    assert world.order() == ["third"]


async def test_a_provider_that_turns_slow_loses_its_place_to_what_it_said(world: World) -> None:
    graded(world)
    only_latency = {"quality": 0, "cost": 0, "latency": 1}
    world.route(providers({"main": 1, "second": 1}, strategy="score", score=only_latency))
    load = world.runtime.load("second")
    load.observe(5.0, world.clock())
    await world.answer()
    assert world.order() == ["main"]


@pytest.mark.parametrize(
    ("step", "field"),
    [
        pytest.param(
            {"strategy": "score", "score": {"quality": 0, "cost": 0, "latency": 0}},
            "spec.steps[0].score.quality",
            id="nothing counts",
        ),
        pytest.param({"score": {"quality": 1}}, "spec.steps[0].score", id="without the strategy"),
        pytest.param(
            {"strategy": "score", "score": {"cost": -1}}, "spec.steps[0].score.cost", id="a negative weight"
        ),
    ],
)
def test_weights_that_mean_nothing_are_refused_with_their_field(step: dict[str, Any], field: str) -> None:
    chosen = {"action": "select_provider", "providers": [{"extensionRef": {"name": "main"}}], **step}
    document = {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": "scored"},
        "spec": {"steps": [chosen]},
    }
    with pytest.raises(InvalidObjectError) as refused:
        parse_object(document)
    assert [fault.path for fault in refused.value.faults] == [field]


def test_a_record_from_elsewhere_with_such_weights_is_refused_by_the_router(world: World) -> None:
    nothing = {"quality": 0, "cost": 0, "latency": 0}
    route = policy("only", [providers({"main": 1, "second": 1}, strategy="score", score=nothing)])
    done = compile_snapshot(world.extensions.values(), [route], revision=1, previous=None)
    assert [refused.field for refused in done.refused] == ["spec.steps[0].score"]
