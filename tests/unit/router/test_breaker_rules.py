"""The breaker's rules, one claim each."""

from __future__ import annotations

import pytest

from beamline_contract.extension import CircuitBreaker
from beamline_sdk.breaker import Breaker, BreakerSettings, open_seconds, opens

SETTINGS = BreakerSettings()


def breaker(settings: BreakerSettings = SETTINGS, jitter: float = 0.0) -> Breaker:
    return Breaker(settings, random=lambda: jitter)


def permit(guard: Breaker, now: float) -> int:
    found = guard.acquire(now)
    assert found is not None
    return found


def fail(guard: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        guard.failure(permit(guard, now), now)


def succeed(guard: Breaker, now: float, times: int = 1, *, slow: bool = False) -> None:
    for _ in range(times):
        guard.success(permit(guard, now), now, slow=slow)


def opened(now: float = 0.0) -> Breaker:
    guard = breaker()
    fail(guard, now, 5)
    assert guard.state == "open"
    return guard


def half_opened(now: float = 30.0) -> tuple[Breaker, int]:
    guard = opened()
    return guard, permit(guard, now)


def test_the_defaults_are_those_of_the_resource() -> None:
    assert BreakerSettings.of(CircuitBreaker()) == SETTINGS


@pytest.mark.parametrize(
    ("calls", "failures", "slow", "expected"),
    [
        pytest.param(5, 5, 0, True, id="five failures of five calls open it"),
        pytest.param(4, 4, 0, False, id="four failures do not"),
        pytest.param(10, 5, 0, True, id="five failures that are half of the calls open it"),
        pytest.param(11, 5, 0, False, id="five failures that are less than half do not"),
        pytest.param(10, 0, 8, True, id="eight slow calls of ten open it"),
        pytest.param(10, 0, 7, False, id="seven slow calls of ten do not"),
        pytest.param(9, 0, 9, False, id="nine calls are too few to be judged by slowness"),
    ],
)
def test_when_it_opens(calls: int, failures: int, slow: int, expected: bool) -> None:
    assert opens(SETTINGS, calls, failures, slow) is expected


def test_with_ratio_zero_the_plain_count_decides() -> None:
    assert opens(BreakerSettings(min_failure_ratio=0), 1_000, 5, 0)


def test_the_fifth_failure_opens_it_and_the_next_call_is_refused() -> None:
    guard = breaker()
    fail(guard, 0.0, 4)
    assert guard.state == "closed"
    fail(guard, 0.0)
    assert guard.state == "open"
    assert guard.acquire(0.0) is None
    assert not guard.available(0.0)


def test_failures_that_left_the_window_do_not_count() -> None:
    guard = breaker()
    fail(guard, 0.0, 4)
    fail(guard, 60.0)
    assert guard.state == "closed"


def test_failures_within_the_window_count_together() -> None:
    guard = breaker()
    for second in range(5):
        fail(guard, second * 14.0)
    assert guard.state == "open"


@pytest.mark.parametrize(
    ("openings", "random", "seconds"),
    [
        pytest.param(1, 0.0, 30, id="the first opening lasts 30 s"),
        pytest.param(2, 0.0, 60, id="the second twice as long"),
        pytest.param(4, 0.0, 240, id="the fourth eight times as long"),
        pytest.param(5, 0.0, 300, id="the fifth is capped at 300 s"),
        pytest.param(10_000, 0.0, 300, id="ever later ones too"),
        pytest.param(1, 0.5, 27, id="jitter shortens by up to 20 percent"),
    ],
)
def test_how_long_it_stays_open(openings: int, random: float, seconds: float) -> None:
    assert open_seconds(SETTINGS, openings, random) == pytest.approx(seconds)


@pytest.mark.parametrize("random", [0.0, 0.3, 0.999])
def test_jitter_stays_within_twenty_percent(random: float) -> None:
    assert 24 <= open_seconds(SETTINGS, 1, random) <= 30


def test_it_lets_one_probe_through_when_its_time_is_over_and_only_one() -> None:
    guard = opened()
    assert guard.acquire(29.999) is None
    assert guard.acquire(30.0) is not None
    assert guard.state == "half-open"
    assert guard.acquire(30.0) is None


def test_three_good_probes_close_it() -> None:
    guard = opened()
    for expected in ("half-open", "half-open", "closed"):
        succeed(guard, 30.0)
        assert guard.state == expected


def test_a_bad_probe_opens_it_for_twice_as_long() -> None:
    guard = opened()
    succeed(guard, 30.0, 2)
    fail(guard, 30.0)
    assert guard.state == "open"
    assert guard.reopens_at() == 90.0


def test_closing_forgets_earlier_openings() -> None:
    guard = opened()
    succeed(guard, 30.0, 3)
    fail(guard, 30.0, 5)
    assert guard.reopens_at() == 60.0


def test_closing_starts_with_an_empty_window() -> None:
    guard = opened()
    succeed(guard, 30.0, 3)
    fail(guard, 30.0, 4)
    assert guard.state == "closed"


def test_a_released_probe_makes_room_for_the_next() -> None:
    guard, probe = half_opened()
    guard.release(probe)
    assert guard.state == "half-open"
    assert guard.acquire(30.0) is not None


def test_a_released_call_counts_neither_way() -> None:
    guard = breaker()
    for _ in range(100):
        guard.release(permit(guard, 0.0))
    fail(guard, 0.0, 5)
    assert guard.state == "open"


@pytest.mark.parametrize("result", ["success", "failure", "release", "cooldown"])
def test_a_late_result_does_not_move_a_newer_state(result: str) -> None:
    guard = breaker()
    late = permit(guard, 0.0)
    fail(guard, 0.0, 5)
    probe = permit(guard, 30.0)
    if result == "success":
        guard.success(late, 30.0)
    elif result == "failure":
        guard.failure(late, 30.0)
    elif result == "release":
        guard.release(late)
    else:
        guard.cooldown(late, 30.0, 100)
    assert guard.state == "half-open"
    assert guard.acquire(30.0) is None, "the probe under way still has its place"
    guard.success(probe, 30.0)
    succeed(guard, 30.0, 2)
    assert guard.state == "closed"


def test_a_late_failure_does_not_count_in_the_window_after_closing() -> None:
    guard = breaker()
    late = permit(guard, 0.0)
    fail(guard, 0.0, 5)
    succeed(guard, 30.0, 3)
    fail(guard, 30.0, 4)
    guard.failure(late, 30.0)
    assert guard.state == "closed"


def test_slow_answers_open_it() -> None:
    guard = breaker()
    succeed(guard, 0.0, 10, slow=True)
    assert guard.state == "open"


def test_a_cooldown_refuses_for_its_time_and_is_no_failure() -> None:
    guard = breaker()
    guard.cooldown(permit(guard, 0.0), 0.0, 7.0)
    assert guard.state == "closed"
    assert guard.cooling(6.9)
    assert guard.acquire(6.9) is None
    assert guard.acquire(7.0) is not None
    fail(guard, 7.0, 4)
    assert guard.state == "closed"


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        pytest.param(86_400.0, 300.0, id="a day is capped at 300 s"),
        pytest.param(-1.0, 0.0, id="less than nothing is nothing"),
        pytest.param(None, 1.0, id="one second where nobody says"),
    ],
)
def test_how_long_a_cooldown_lasts(asked: float | None, seconds: float) -> None:
    guard = breaker()
    guard.cooldown(permit(guard, 0.0), 0.0, asked)
    assert guard.reopens_at() == seconds


def test_a_shorter_cooldown_does_not_end_a_longer_one() -> None:
    guard = breaker()
    first, second = permit(guard, 0.0), permit(guard, 0.0)
    guard.cooldown(first, 0.0, 60.0)
    guard.cooldown(second, 0.0, 1.0)
    assert guard.reopens_at() == 60.0


def test_a_probe_that_meets_a_429_is_neither_good_nor_bad() -> None:
    guard, probe = half_opened()
    guard.cooldown(probe, 30.0, 5.0)
    assert guard.state == "half-open"
    assert guard.acquire(34.0) is None
    assert guard.acquire(35.0) is not None


def test_a_trial_goes_through_an_open_breaker_one_at_a_time() -> None:
    guard = opened()
    assert guard.trial(1.0) is not None
    assert guard.trial(1.0) is None
    assert guard.state == "open"


def test_a_trial_that_fails_leaves_the_opening_as_it_was() -> None:
    guard = opened()
    trial = guard.trial(1.0)
    assert trial is not None
    guard.failure(trial, 1.0)
    assert (guard.state, guard.reopens_at()) == ("open", 30.0)
    assert guard.trial(1.0) is not None


def test_a_trial_that_succeeds_is_the_first_good_probe() -> None:
    guard = opened()
    trial = guard.trial(1.0)
    assert trial is not None
    guard.success(trial, 1.0)
    assert guard.state == "half-open"
    succeed(guard, 1.0, 2)
    assert guard.state == "closed"


def test_a_trial_that_is_released_makes_room() -> None:
    guard = opened()
    trial = guard.trial(1.0)
    assert trial is not None
    guard.release(trial)
    assert guard.trial(1.0) is not None


def test_a_cooling_breaker_gives_no_trial() -> None:
    guard = opened()
    trial = guard.trial(1.0)
    assert trial is not None
    guard.cooldown(trial, 1.0, 5.0)
    assert guard.trial(2.0) is None


def test_isolated_refuses_until_reset_whatever_results_come() -> None:
    guard = breaker()
    early = permit(guard, 0.0)
    guard.isolate()
    guard.success(early, 0.0)
    assert guard.state == "isolated"
    assert guard.acquire(1e9) is None
    assert guard.trial(1e9) is None
    assert not guard.available(1e9)
    assert guard.reopens_at() == float("inf")
    guard.reset()
    assert guard.state == "closed"
    assert guard.acquire(0.0) is not None


def test_reset_ends_a_cooldown_too() -> None:
    guard = breaker()
    guard.cooldown(permit(guard, 0.0), 0.0, 100.0)
    guard.reset()
    assert guard.acquire(0.0) is not None


def test_every_change_of_state_is_heard_once() -> None:
    heard: list[str] = []
    guard = Breaker(SETTINGS, random=lambda: 0.0, on_change=heard.append)
    fail(guard, 0.0, 5)
    succeed(guard, 30.0, 3)
    guard.reset()
    guard.isolate()
    guard.isolate()
    assert heard == ["open", "half-open", "closed", "isolated"]


def test_new_settings_keep_the_state() -> None:
    guard = opened()
    guard.configure(BreakerSettings(failure_threshold=2, window_s=10.0))
    assert guard.state == "open"
    guard.reset()
    fail(guard, 0.0, 2)
    assert guard.state == "open"


def test_a_new_window_length_starts_an_empty_window() -> None:
    guard = breaker()
    fail(guard, 0.0, 4)
    guard.configure(BreakerSettings(window_s=10.0))
    fail(guard, 0.0)
    assert guard.state == "closed"
