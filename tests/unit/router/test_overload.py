"""When an overloaded router refuses, how many, and how it comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beamline_router.core.overload import FLOOR, MAX_SHARE, Shedder

STEP = 0.02
MANY = FLOOR + 100


def fed(shedder: Shedder, delays: list[float], start: float = 0.0) -> float:
    now = start
    for delay in delays:
        now += STEP
        shedder.sample(delay, now)
    return now


def overloaded(delay: float = 0.03, seconds: float = 1.0) -> tuple[Shedder, float]:
    shedder = Shedder()
    now = fed(shedder, [0.0005] * 20)
    return shedder, fed(shedder, [delay] * round(seconds / STEP), now)


def refused(shedder: Shedder, arrivals: int, in_flight: int = MANY) -> int:
    return sum(shedder.refuses(in_flight) for _ in range(arrivals))


def test_without_a_delay_nobody_is_refused() -> None:
    shedder = Shedder()
    fed(shedder, [0.0005] * 500)
    assert refused(shedder, 1000, 100_000) == 0


def test_a_delay_that_stands_makes_a_share_that_grows() -> None:
    shares = [overloaded(seconds=seconds)[0].share for seconds in (0.2, 0.5, 1.0, 5.0)]
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < shares[1]
    assert shares[-1] == MAX_SHARE


def test_single_late_samples_are_no_overload() -> None:
    shedder = Shedder()
    fed(shedder, [0.2, 0.2, 0.2, 0.0005] * 200)
    assert refused(shedder, 1000) == 0


def test_a_distant_server_is_no_overload() -> None:
    shedder = Shedder()
    fed(shedder, [0.04] * 500)
    assert refused(shedder, 1000) == 0


def test_a_lasting_overload_does_not_become_the_new_normal() -> None:
    shedder, now = overloaded(seconds=1.0)
    fed(shedder, [0.03] * 10_000, now)
    assert shedder.share == MAX_SHARE


def test_so_many_as_keep_it_busy_are_always_let_through() -> None:
    shedder, _ = overloaded(seconds=5.0)
    assert refused(shedder, 1000, FLOOR - 1) == 0
    assert refused(shedder, 1000, FLOOR) > 900


@given(st.floats(0.01, MAX_SHARE), st.integers(1, 2_000))
def test_refusals_are_spread_evenly(share: float, arrivals: int) -> None:
    shedder = Shedder()
    shedder.share = share
    assert abs(refused(shedder, arrivals) - share * arrivals) <= 1.0


def test_when_the_delay_is_gone_everybody_is_served_within_four_seconds() -> None:
    shedder, now = overloaded(seconds=5.0)
    fed(shedder, [0.0005] * 200, now)
    assert shedder.share == 0.0


def test_after_a_reconnect_all_is_learnt_anew() -> None:
    shedder, now = overloaded(seconds=5.0)
    shedder.forget()
    assert refused(shedder, 100) == 0
    fed(shedder, [0.03] * 100, now)
    assert refused(shedder, 100) == 0


@given(st.lists(st.floats(0.0, 100.0), max_size=300))
def test_the_share_is_always_a_share(delays: list[float]) -> None:
    shedder = Shedder()
    now = 0.0
    for delay in delays:
        now += STEP
        shedder.sample(delay, now)
        assert 0.0 <= shedder.share <= MAX_SHARE


def test_the_controller_settles_where_the_work_that_is_let_in_can_be_done() -> None:
    """A process that can do 100 of 200 arrivals per step; its queue is the delay."""
    shedder, now, queue, done = Shedder(), 0.0, 0.0, 0.0
    fed(shedder, [0.0] * 10)
    for step in range(1_000):
        now += STEP
        shedder.sample(queue / 5_000.0, now + 1.0)
        queue += sum(not shedder.refuses(MANY) for _ in range(200))
        worked = min(queue, 100.0)
        queue -= worked
        done += worked if step >= 200 else 0.0
    assert done >= 0.95 * 800 * 100.0
    assert queue / 5_000.0 < 0.02
