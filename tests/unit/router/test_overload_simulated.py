"""Admission control on a simulated router: one core, first come first served, a clock that is only counted.

Each request costs the core four pieces of work with an answer from elsewhere between them, each refusal a
twentieth of a request. The probe is work like any other, so it waits as long as all that arrived before it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from beamline_router.core.overload import TRIAL_S, Shedder

PIECES = 4
REFUSAL = 0.05
PROBE_S = 0.02
BACK_S = 0.001
CROWD = 100
"""The first piece of a client who comes back, where that of others is 0."""
GOOD_S = 1.0
"""An answer that takes this much longer than the extensions' own time is no good any more."""

Level = Callable[[float], float]


@dataclass
class Simulated:
    """``rate`` and ``capacity`` are requests per second at a time; ``remote_s``: what extensions take;
    ``foreign_s``: how late NATS itself is; ``crowd``: clients who send again a millisecond after an answer or
    a refusal.
    """

    rate: Level
    capacity: Level
    remote_s: float = 0.0005
    foreign_s: Level = lambda _: 0.0
    crowd: int = 0
    shedder: Shedder = field(default_factory=Shedder)
    good: list[float] = field(default_factory=list)
    waited: list[tuple[float, float]] = field(default_factory=list)

    def run(self, seconds: float) -> Simulated:
        now, number, in_flight, ended, idle = 0.0, 0, 0, 0, False
        work: list[tuple[float, int, int, float]] = [(0.0, -1, -1, 0.0), (0.0, 0, 0, 0.0)]
        work += [(0.001, number, CROWD, 0.0) for number in range(self.crowd)]
        while work[0][0] < seconds:
            due, _, piece, born = heapq.heappop(work)
            number += 1
            idle, now = idle or due > now, max(now, due)
            cost = 1.0 / self.capacity(now)
            if piece < 0:
                delay = now - due + self.foreign_s(now)
                self.shedder.sample(delay, now, in_flight=in_flight, ended=ended, idle=idle)
                idle = False
                heapq.heappush(work, (now + PROBE_S, number, -1, 0.0))
                continue
            if piece in (0, CROWD):
                if piece == 0:
                    heapq.heappush(work, (due + 1.0 / self.rate(due), number, 0, 0.0))
                if self.shedder.refuses(in_flight):
                    now += cost * REFUSAL
                    self.waited.append((now, now - due))
                    if piece == CROWD:
                        heapq.heappush(work, (now + BACK_S, number, CROWD, 0.0))
                    continue
                in_flight, born = in_flight + 1, due
            now += cost / PIECES
            if piece % CROWD < PIECES - 1:
                back = now + self.remote_s / (PIECES - 1)
                heapq.heappush(work, (back, number + 1_000_000_000, piece + 1, born))
                continue
            if piece >= CROWD:
                heapq.heappush(work, (now + BACK_S, number, CROWD, 0.0))
            in_flight, ended = in_flight - 1, ended + 1
            if now - born <= GOOD_S + self.remote_s:
                self.good.append(now)
        return self

    def goodput(self, begin: float, end: float) -> float:
        return sum(begin <= at < end for at in self.good) / (end - begin)

    def median_refusal(self, begin: float) -> float:
        waits = sorted(wait for at, wait in self.waited if at >= begin)
        return waits[len(waits) // 2]


def step(before: float, at: float, after: float) -> Level:
    return lambda now: before if now < at else after


def always(value: float) -> Level:
    return lambda _: value


@pytest.mark.parametrize("capacity", [500.0, 1_000.0, 4_000.0])
@pytest.mark.parametrize("times", [1.5, 2.0, 3.0])
def test_under_overload_all_that_refusals_leave_is_served_and_refusals_wait_no_5_ms(
    times: float, capacity: float
) -> None:
    run = Simulated(step(capacity / 2, 1.0, capacity * times), always(capacity)).run(6.0)
    possible = capacity * (1.0 - REFUSAL * times) / (1.0 - REFUSAL)
    assert run.goodput(2.0, 6.0) >= 0.97 * possible
    assert run.median_refusal(2.0) <= 0.005


@pytest.mark.parametrize("times", [1.1, 2.0, 4.0])
def test_the_queue_is_held_so_short_that_refusals_and_answers_wait_a_few_milliseconds(times: float) -> None:
    run = Simulated(step(2_000.0, 1.0, 4_000.0 * times), always(4_000.0)).run(6.0)
    assert run.median_refusal(3.0) <= 0.002


def test_a_burst_that_is_soon_served_is_not_refused() -> None:
    burst = lambda now: 20_000.0 if 2.0 <= now < 2.005 else 2_000.0  # noqa: E731
    run = Simulated(burst, always(4_000.0)).run(6.0)
    assert not run.waited


def test_when_the_capacity_drops_to_a_third_goodput_follows_it() -> None:
    capacity = 3_000.0
    run = Simulated(always(capacity * 0.95), step(capacity, 2.0, capacity / 3)).run(8.0)
    possible = capacity / 3 * (1.0 - REFUSAL * 2.85) / (1.0 - REFUSAL)
    assert possible >= 0.9 * capacity / 3
    assert run.goodput(2.0, 8.0) >= 0.97 * possible
    assert run.goodput(2.0, 3.0) >= 0.75 * possible, "the second in which it drops"
    for second in range(3, 8):
        assert run.goodput(second, second + 1.0) >= 0.95 * possible
    assert run.median_refusal(4.0) <= 0.006


def test_a_trial_that_shows_overload_costs_little() -> None:
    run = Simulated(step(2_000.0, 1.0, 8_000.0), always(4_000.0)).run(2.0 + 3 * TRIAL_S)
    possible = 4_000.0 * (1.0 - REFUSAL * 2.0) / (1.0 - REFUSAL)
    assert run.goodput(2.0, 2.0 + 3 * TRIAL_S) >= 0.97 * possible
    assert run.median_refusal(2.0) <= 0.002
    assert max(wait for at, wait in run.waited if at >= 2.0) > 0.015, "there were trials"


def test_when_the_capacity_is_back_everybody_is_served_again() -> None:
    stolen = lambda now: 1_000.0 if 2.0 <= now < 4.0 else 3_000.0  # noqa: E731
    run = Simulated(always(2_500.0), stolen).run(8.0)
    assert run.goodput(5.0, 8.0) >= 0.99 * 2_500.0
    assert run.shedder.share == 0.0


@pytest.mark.parametrize(("clients", "share"), [(64, 0.99), (1_000, 0.5), (2_000, 0.4), (5_000, 0.3)])
def test_a_crowd_that_comes_back_at_once_does_not_make_the_router_refuse_instead_of_serve(
    clients: int, share: float
) -> None:
    run = Simulated(always(1.0), always(7_000.0), crowd=clients).run(12.0)
    assert run.goodput(4.0, 12.0) >= share * 7_000.0


def test_a_nats_server_that_is_late_costs_no_goodput_with_slow_models() -> None:
    run = Simulated(always(800.0), always(1_000.0), remote_s=1.0, foreign_s=step(0.0, 2.0, 0.02)).run(8.0)
    assert run.goodput(4.0, 8.0) >= 0.99 * 800.0
    assert not run.waited


@pytest.mark.parametrize(
    ("remote_s", "capacity", "times"),
    [(0.1, 1_000.0, 3.0), (0.3, 1_000.0, 2.0), (1.0, 1_000.0, 2.0), (3.0, 1_000.0, 1.5), (3.0, 300.0, 2.0)],
)
def test_with_slow_models_as_much_is_served_and_refusals_wait_milliseconds(
    remote_s: float, capacity: float, times: float
) -> None:
    lasts = 8.0 + 6.0 * remote_s
    load = step(capacity / 2, 2.0, capacity * times)
    run = Simulated(load, always(capacity), remote_s=remote_s).run(lasts)
    possible = capacity * (1.0 - REFUSAL * times) / (1.0 - REFUSAL)
    assert run.goodput(lasts / 2, lasts) >= 0.9 * possible
    assert run.median_refusal(lasts / 2) <= 0.01


def test_with_models_of_ten_seconds_an_overload_leaves_more_than_half() -> None:
    run = Simulated(step(150.0, 2.0, 600.0), always(300.0), remote_s=10.0).run(60.0)
    assert run.goodput(30.0, 60.0) >= 0.6 * 300.0
    assert run.median_refusal(30.0) <= 0.005


def test_when_the_capacity_is_back_slow_models_are_asked_as_before_within_two_seconds() -> None:
    stolen = lambda now: 100.0 if 4.0 <= now < 8.0 else 4_000.0  # noqa: E731
    run = Simulated(always(1_000.0), stolen, remote_s=2.0).run(14.0)
    refused = [at for at, _ in run.waited]
    assert len(refused) > 1_000
    assert max(refused) < 10.0
    assert run.goodput(12.0, 14.0) >= 0.99 * 1_000.0


def test_the_drop_would_be_fatal_without_admission_control() -> None:
    class Open(Shedder):
        def refuses(self, in_flight: int) -> bool:
            return False

    run = Simulated(always(2_850.0), step(3_000.0, 2.0, 1_000.0), shedder=Open()).run(8.0)
    assert run.goodput(5.0, 8.0) == 0.0
