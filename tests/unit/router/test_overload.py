"""When an overloaded router refuses, whom, and how it comes back."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_router.core.overload import (
    BESIEGED,
    FLOOR,
    FLOOR_OF_REFUSED,
    FLOOR_S,
    HELD_S,
    REST_S,
    TARGET_S,
    TRIAL_ENDS_S,
    TRIAL_S,
    Shedder,
)

STEP = 0.02
PER_STEP = 200
"""Arrivals in a step of a router that is overloaded; half of them can be served."""
MANY = 100_000


class Fed:
    """A shedder whose router is asked for ``PER_STEP`` and ends half of it, in each step. As many are in
    flight as the bound lets in.
    """

    def __init__(self) -> None:
        self.shedder = Shedder()
        self.now = 0.0
        self.ended = 0

    def go(
        self,
        delays: Iterable[float],
        *,
        idle: bool = False,
        ended: int = PER_STEP // 2,
        in_flight: int = MANY,
    ) -> Fed:
        for delay in delays:
            self.now += STEP
            for _ in range(PER_STEP):
                self.shedder.refuses(in_flight)
            self.ended += ended
            served = ceil(min(in_flight, self.shedder.limit))
            self.shedder.sample(delay, self.now, in_flight=served, ended=self.ended, idle=idle)
        return self

    def refused(self, arrivals: int = 1000, in_flight: int = MANY) -> int:
        return sum(self.shedder.refuses(in_flight) for _ in range(arrivals))


def calm() -> Fed:
    return Fed().go([0.0005] * 20)


def overloaded(delay: float = 0.08, seconds: float = 1.0, in_flight: int = MANY) -> Fed:
    return calm().go([delay] * round(seconds / STEP), in_flight=in_flight)


def test_without_a_delay_nobody_is_refused() -> None:
    assert Fed().go([0.0005] * 500).refused() == 0


def test_while_a_queue_stands_fewer_may_be_in_flight_than_are() -> None:
    fed = overloaded(seconds=0.2, in_flight=1_000)
    assert fed.shedder.limit < 1_000
    assert fed.refused(100, 1_000) == 100


def test_the_longer_the_queue_the_fewer_may_be_in_flight() -> None:
    limits = [overloaded(delay, 0.2, 2_000).shedder.limit for delay in (0.055, 0.06, 0.1, 0.5)]
    assert limits == sorted(limits, reverse=True)


def test_a_queue_that_is_short_of_the_target_is_no_overload() -> None:
    assert calm().go([TARGET_S * 0.9] * 500).refused() == 0
    assert overloaded(TARGET_S + 0.001).refused() == 1_000


@pytest.mark.parametrize(("delay", "more"), [(0.0005, True), (HELD_S * 2, False), (TARGET_S * 0.9, False)])
def test_once_requests_are_refused_the_queue_is_held_shorter_than_what_began_it(
    delay: float, more: bool
) -> None:
    fed = overloaded(seconds=0.2, in_flight=10_000).go([delay] * 3)
    before = fed.shedder.limit
    assert (fed.go([delay]).shedder.limit > before) is more


@pytest.mark.parametrize(("bound", "more"), [(20_000.0, PER_STEP / 4), (300.0, 30.0)])
def test_where_models_are_slow_the_bound_grows_by_a_tenth_and_by_no_more_than_half_of_what_ends(
    bound: float, more: float
) -> None:
    fed = overloaded(seconds=0.2).go([0.0005] * 2)
    fed.shedder.limit = bound
    assert fed.go([0.0005]).shedder.limit == pytest.approx(bound + more)


def test_the_bound_is_lowered_again_only_once_as_few_are_in_flight() -> None:
    fed = calm().go([0.08] * 6, in_flight=1_000)
    before = fed.shedder.limit
    assert before < 1_000
    for in_flight, lower in ((1_000, False), (ceil(before) + 2, False), (ceil(before), True)):
        fed.now += STEP
        fed.ended += PER_STEP // 2
        fed.shedder.sample(0.08, fed.now, in_flight=in_flight, ended=fed.ended)
        assert (fed.shedder.limit < before) is lower


def test_behind_a_queue_that_delays_the_samples_too_the_bound_is_lowered() -> None:
    fed = calm()
    for _ in range(10):
        fed.now += 0.4
        fed.go([0.4], in_flight=2_000)
    assert fed.shedder.limit < 1_500


def test_a_pause_of_the_whole_process_is_no_overload() -> None:
    fed = calm()
    for _ in range(20):
        fed.now += 1.0
        assert fed.go([1.0] + [0.0005] * 3).shedder.limit == inf


def test_only_where_nearly_everybody_is_refused_who_is_refused_rests() -> None:
    shedder = Shedder()
    rests = []
    for share in (0.0, 0.75, BESIEGED, (BESIEGED + 1.0) / 2, 1.0):
        shedder.share = share
        rests.append(shedder.rest_s())
    assert rests == [0.0, 0.0, 0.0, pytest.approx(REST_S / 2), pytest.approx(REST_S)]


def test_single_late_samples_are_no_overload() -> None:
    assert Fed().go([0.2, 0.2, 0.2, 0.0005] * 200).refused() == 0


def test_a_distant_server_is_no_overload() -> None:
    assert Fed().go([0.04] * 500).refused() == 0


def test_a_late_ping_is_no_overload_where_the_process_had_nothing_to_do() -> None:
    assert calm().go([0.2] * 500, idle=True).refused() == 0


def test_now_and_then_many_more_are_let_in_until_a_delay_stands_again() -> None:
    fed = overloaded(seconds=TRIAL_S - 0.2, in_flight=2_000)
    before = fed.shedder.limit
    many = before + PER_STEP / 2 / STEP * TRIAL_ENDS_S
    bounds = [fed.go([0.08], in_flight=2_000).shedder.limit for _ in range(80)]
    begun = next(index for index, bound in enumerate(bounds) if bound >= many)
    assert bounds[begun] == pytest.approx(many, rel=0.05)
    assert min(bounds[begun : begun + 5]) >= many, "an interval without lowering"
    assert max(bounds[begun + 10 :]) < many
    assert fed.shedder.limit == pytest.approx(before)


def test_a_trial_goes_on_below_the_delay_that_begins_an_overload() -> None:
    fed = overloaded(seconds=TRIAL_S - 0.2, in_flight=2_000).go([TARGET_S * 0.9] * 40, in_flight=2_000)
    before = fed.shedder.limit
    assert before > PER_STEP / 2 / STEP * TRIAL_ENDS_S, "it has begun"
    assert fed.go([TARGET_S * 0.9] * 20, in_flight=2_000).shedder.limit > before


def test_who_could_all_be_served_but_come_back_at_once_are_served_again_after_a_trial() -> None:
    fed = overloaded(seconds=TRIAL_S - 1.0)
    assert fed.go([HELD_S + 0.001] * 10, in_flight=64).shedder.share > 0.0
    assert fed.go([HELD_S + 0.001] * 400, in_flight=64).shedder.limit == inf


def test_a_lasting_overload_does_not_become_the_new_normal() -> None:
    fed = overloaded(seconds=200.0)
    held = [fed.go([0.08]).shedder.limit < inf for _ in range(500)]
    assert sum(held) > 450


def test_so_many_as_end_within_three_milliseconds_are_always_let_through() -> None:
    fed = calm().go([0.08] * 250, ended=1_000, in_flight=2_000)
    at_once = round(1_000 / STEP * FLOOR_S)
    assert fed.refused(1000, at_once - 1) == 0
    assert fed.refused(1000, at_once + 1) == 1000


def test_a_quarter_of_those_who_are_refused_in_one_delay_is_let_through() -> None:
    fed = overloaded(seconds=5.0, in_flight=1_000)
    kept = round(PER_STEP / STEP * 0.03 * FLOOR_OF_REFUSED)
    assert fed.refused(1000, kept - 1) == 0
    assert fed.refused(1000, kept + 1) == 1000


def test_a_few_are_let_through_where_nothing_ends_at_all() -> None:
    fed = calm().go([0.5] * 400, ended=0, in_flight=50)
    assert fed.refused(1000, FLOOR - 1) == 0


def test_the_share_is_what_was_refused_lately() -> None:
    fed = overloaded(seconds=2.0)
    assert fed.shedder.share == 1.0
    for _ in range(20):
        fed.refused(PER_STEP, 0)
        fed.go([0.08])
    assert fed.shedder.share == pytest.approx(0.5)


def test_when_the_delay_is_gone_everybody_is_served_within_a_second() -> None:
    fed = overloaded(seconds=5.0).go([0.0005] * 50, ended=PER_STEP, in_flight=10)
    assert fed.shedder.limit == inf


def test_after_a_reconnect_all_is_learnt_anew() -> None:
    fed = overloaded(seconds=5.0)
    fed.shedder.forget()
    assert fed.refused(100) == 0
    assert fed.go([0.08] * 100).refused(100) == 0


def test_who_starts_into_an_overload_does_not_take_it_for_the_distance_of_the_server() -> None:
    fed = Fed()
    fed.shedder.forget(0.0005)
    assert fed.go([0.06] * 20, in_flight=2_000).shedder.limit < 2_000
    distant = Fed()
    distant.shedder.forget(0.05)
    assert distant.go([0.06] * 500).refused() == 0


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.booleans(), st.integers(0, 10_000)), max_size=100))
def test_the_share_is_always_a_share_and_the_bound_leaves_a_few(
    samples: list[tuple[float, bool, int]],
) -> None:
    fed = Fed()
    for delay, idle, ended in samples:
        fed.go([delay], idle=idle, ended=ended)
        assert 0.0 <= fed.shedder.share <= 1.0
        assert fed.shedder.limit >= FLOOR
