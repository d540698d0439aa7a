"""Breakers and health in status: the worst over all routers, on transitions, at most every ten seconds."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_contract.reports import STATUS_TTL_S, HealthDelta, RouterHealth
from beamline_operator.core.health import WINDOW_S, HealthBoard


def report(
    instance: str = "r1", *, extension_id: str = "guard", success: int = 0, failure: int = 0, **fields: Any
) -> RouterHealth:
    delta = HealthDelta(extension_id=extension_id, success=success, failure=failure, **fields)
    return RouterHealth(instance=instance, sequence=0, deltas=[delta])


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        (["closed", "closed"], "closed"),
        (["closed", "half-open"], "half-open"),
        (["open", "half-open"], "open"),
        (["isolated", "open"], "isolated"),
    ],
)
def test_the_worst_breaker_of_all_routers_counts(states: list[str], worst: str) -> None:
    board = HealthBoard()
    for number, state in enumerate(states):
        board.take(report(f"r{number}", breaker=state), 0.0)
    told = board.read("guard", 0.0)
    assert told is not None
    assert told.breaker == worst


@pytest.mark.parametrize(
    ("success", "failure", "word", "score"),
    [(100, 0, "healthy", 100), (99, 1, "healthy", 99), (95, 5, "degraded", 95), (1, 1, "failing", 50),
     (0, 0, "no_data", None)],
)  # fmt: skip
def test_health_is_the_share_of_calls_that_succeeded(
    success: int, failure: int, word: str, score: int | None
) -> None:
    board = HealthBoard()
    board.take(report(success=success, failure=failure), 0.0)
    told = board.read("guard", 0.0)
    assert told is not None
    assert (told.state, told.score) == (word, score)


def test_calls_older_than_five_minutes_count_no_more_and_their_error_goes_with_them() -> None:
    board = HealthBoard()
    board.take(report(failure=5, last_error="UNAVAILABLE"), 0.0)
    first = board.read("guard", 0.0)
    assert first is not None
    assert first.last_error == "UNAVAILABLE"
    assert board.settle(200.0) == {}
    board.take(report(success=5), 299.0)
    board.read("guard", 299.0)
    assert board.settle(320.0) == {"guard": 0.0}
    later = board.read("guard", 320.0)
    assert later is not None
    assert (later.state, later.score, later.last_error) == ("healthy", 100, None)


def test_a_transition_is_told_at_once_and_the_next_not_before_ten_seconds() -> None:
    board = HealthBoard()
    assert board.take(report(breaker="open"), 100.0) == {"guard": 0.0}
    assert board.read("guard", 100.0).breaker == "open"  # type: ignore[union-attr]  # it was told
    assert board.take(report(breaker="closed"), 103.0) == {"guard": 7.0}
    assert board.read("guard", 103.0).breaker == "open"  # type: ignore[union-attr]
    assert board.read("guard", 110.0).breaker == "closed"  # type: ignore[union-attr]


def test_a_score_that_moves_a_little_is_no_transition() -> None:
    board = HealthBoard()
    board.take(report(success=80, failure=20), 0.0)
    board.read("guard", 0.0)
    assert board.take(report(success=18, failure=2), 60.0) == {}
    assert board.take(report(success=50), 120.0) == {"guard": 0.0}


def test_a_router_that_left_takes_its_breaker_along() -> None:
    board = HealthBoard()
    board.take(report("r1", breaker="open"), 0.0)
    board.take(report("r2", breaker="closed"), 0.0)
    board.read("guard", 0.0)
    assert board.forget_router("r1", 50.0) == {"guard": 0.0}
    assert board.read("guard", 50.0).breaker == "closed"  # type: ignore[union-attr]


async def test_status_says_breaker_health_and_error_and_an_event_tells_of_the_change(world: Any) -> None:
    key = world.extension()
    await world.settle()
    world.controller.on_health(report(failure=9, success=1, last_error="DEADLINE_EXCEEDED", breaker="open"))
    await world.settle()
    status = world.store.get(key).status
    assert (status["breaker"], status["lastError"]) == ("open", "DEADLINE_EXCEEDED")
    assert status["health"] == {"status": "failing", "score": 10}
    reasons = [event.reason.value for _, event in world.store.events]
    assert reasons.count("BreakerOpened") == 1
    await world.advance(30)
    world.controller.on_health(report(success=1, breaker="closed"))
    await world.settle()
    assert world.store.get(key).status["breaker"] == "closed"
    assert [event.reason.value for _, event in world.store.events].count("BreakerClosed") == 1


async def test_reports_that_say_nothing_new_write_nothing_however_many(world: Any) -> None:
    world.extension()
    world.policy("guard")
    await world.settle()
    world.controller.on_health(report(success=100))
    await world.settle()
    writes = world.store.writes
    for _ in range(50):
        world.controller.on_health(report(success=100))
        await world.advance(5)
    assert world.store.writes == writes


async def test_a_flapping_breaker_is_written_at_most_every_ten_seconds(world: Any) -> None:
    world.extension()
    await world.settle()
    writes = world.store.writes
    for second in range(60):
        world.controller.on_health(report(breaker="open" if second % 2 else "closed"))
        await world.advance(1)
    assert world.store.writes - writes <= 7


async def test_a_new_process_leaves_the_word_of_the_old_one_until_it_hears_another(world: Any) -> None:
    key = world.extension()
    await world.settle()
    world.controller.on_health(report(breaker="open", failure=1))
    await world.settle()
    writes = world.store.writes
    world.restart()
    await world.settle()
    assert world.store.writes == writes
    assert world.store.get(key).status["breaker"] == "open"


async def test_a_new_leader_drops_the_open_breaker_of_a_router_that_vanished_meanwhile(world: Any) -> None:
    key = world.extension()
    await world.settle()
    world.report("r1")
    world.controller.on_health(report("r1", breaker="open", failure=9))
    await world.settle()
    world.restart()
    await world.settle()
    await world.advance(STATUS_TTL_S - 1)
    world.controller.settle_health()
    await world.settle()
    assert world.store.get(key).status["breaker"] == "open", "the router may still repeat it"
    await world.advance(2)
    world.controller.settle_health()
    await world.settle()
    assert world.store.get(key).status["breaker"] == "closed"
    await world.advance(WINDOW_S)
    world.controller.settle_health()
    await world.settle()
    assert world.store.get(key).status["health"] == {"status": "no_data"}


async def test_a_new_leader_keeps_the_open_breaker_that_a_router_repeats(world: Any) -> None:
    key = world.extension()
    await world.settle()
    world.report("r1")
    world.controller.on_health(report("r1", breaker="open", failure=9))
    await world.settle()
    world.restart()
    world.report("r1")
    world.controller.on_health(report("r1", breaker="open"))
    await world.advance(STATUS_TTL_S + 10)
    world.controller.settle_health()
    await world.settle()
    assert world.store.get(key).status["breaker"] == "open"


async def test_the_breaker_of_a_router_that_no_longer_reports_is_forgotten(world: Any) -> None:
    key = world.extension()
    await world.settle()
    world.report("r1")
    world.controller.on_health(report("r1", breaker="open", failure=9))
    world.controller.on_health(report("r2", breaker="open", failure=9))  # whose last word came after its end
    await world.settle()
    world.report("r1", leaving=True)
    await world.advance(10)
    world.controller.settle_health()
    await world.settle()
    assert world.store.get(key).status["breaker"] == "closed"


async def test_a_router_is_alive_and_says_nothing_so_the_breaker_is_closed(world: Any) -> None:
    key = world.extension()
    await world.settle()
    assert "breaker" not in world.store.get(key).status
    world.report("r1")
    await world.settle()
    assert world.store.get(key).status["breaker"] == "closed"
