"""Breaker and retry budget against implementations that owe nothing to ours, for the rules they share.

The breaker meets pybreaker. What both know: so many failures open it, it stays open for a fixed time, then
probes, of which so many good ones close it and a bad one opens it again. What pybreaker lacks is set so that
it never shows: no ratio, no doubling, no jitter, nothing slow. It counts failures in a row, we count those of
a window; so a success meets a closed breaker either before any failure, or after a window of quiet.

The budget meets gRPC's rule (A6, retry throttling) in exact fractions.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pybreaker
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_router.core.retry import BudgetSettings, RetryBudget
from beamline_sdk.breaker import Breaker, BreakerSettings

WINDOW_S, OPEN_S = 60.0, 10.0
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Seconds for us, a ``datetime`` class for pybreaker."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self, _: Any) -> datetime:
        return START + timedelta(seconds=self.seconds)


class Pair:
    """Both breakers, given the same calls."""

    def __init__(self, threshold: int, successes: int, clock: Clock) -> None:
        self.clock = clock
        ours = BreakerSettings(
            failure_threshold=threshold,
            window_s=WINDOW_S,
            min_failure_ratio=0.0,
            open_s=OPEN_S,
            max_open_s=OPEN_S,
            half_open_successes=successes,
        )
        self.ours = Breaker(ours, random=lambda: 0.0)
        self.theirs: Any = pybreaker.CircuitBreaker(
            fail_max=threshold, reset_timeout=OPEN_S, success_threshold=successes
        )

    def call(self, *, good: bool) -> None:
        permit = self.ours.acquire(self.clock.seconds)
        if permit is not None:
            (self.ours.success if good else self.ours.failure)(permit, self.clock.seconds)
        called = self._call_theirs(good=good)
        assert called == (permit is not None)
        assert self.ours.state == self.theirs.current_state

    def _call_theirs(self, *, good: bool) -> bool:
        called = False

        def work() -> None:
            nonlocal called
            called = True
            if not good:
                raise ConnectionError

        with suppress(ConnectionError, pybreaker.CircuitBreakerError):
            self.theirs.call(work)
        return called


EVENTS = st.lists(
    st.one_of(
        st.sampled_from(["good", "bad", "bad", "a quiet window"]),
        st.sampled_from([0.0, 1.0, 4.0, OPEN_S - 0.5, OPEN_S]),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(threshold=st.integers(1, 6), successes=st.integers(1, 4), events=EVENTS)
def test_the_breaker_admits_and_changes_state_as_pybreaker_does(
    threshold: int, successes: int, events: list[str | float]
) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pybreaker, "datetime", clock)
        pair = Pair(threshold, successes, clock)
        failures_from = 0.0
        for event in events:
            closed = pair.ours.state == "closed"
            if isinstance(event, float):
                # Within one window of the first failure that both still count.
                if not closed or clock.seconds + event < failures_from + WINDOW_S / 2:
                    clock.seconds += event
            elif event == "a quiet window":
                clock.seconds += 2 * WINDOW_S
                pair.call(good=True)
                failures_from = clock.seconds
            elif event == "bad":
                pair.call(good=False)
            elif not closed or pair.theirs.fail_counter == 0:
                pair.call(good=True)
            if pair.ours.state == "closed" and pair.theirs.fail_counter == 0:
                failures_from = clock.seconds


def test_the_pair_would_notice_a_difference() -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pybreaker, "datetime", clock)
        pair = Pair(2, 1, clock)
        pair.ours.configure(BreakerSettings(failure_threshold=3, min_failure_ratio=0.0, window_s=WINDOW_S))
        pair.call(good=False)
        with pytest.raises(AssertionError):
            pair.call(good=False)


@given(
    tokens=st.integers(1, 1_000),
    thousandths=st.integers(1, 1_000),
    threshold=st.data(),
    results=st.lists(st.booleans(), max_size=300),
)
def test_the_budget_follows_grpcs_rule_in_exact_fractions(
    tokens: int, thousandths: int, threshold: st.DataObject, results: list[bool]
) -> None:
    needed = threshold.draw(st.integers(0, tokens - 1))
    budget = RetryBudget(BudgetSettings.of(tokens, thousandths / 1000, needed))
    exact = Fraction(tokens)
    for good in results:
        if good:
            budget.succeeded()
            exact = min(Fraction(tokens), exact + Fraction(thousandths, 1000))
        else:
            budget.failed()
            exact = max(Fraction(0), exact - 1)
        assert budget.tokens == pytest.approx(float(exact), abs=1e-9)
        assert budget.allows() is (exact > needed)
