"""Retry, its budget and its pauses; deadlines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode, WireError
from beamline_router.core.deadline import (
    SHORTEST_ATTEMPT_S,
    attempt_timeout,
    effective_deadline,
    header_values,
)
from beamline_router.core.retry import BASE_S, CAP_S, RetryBudget, backoff, pause_before_retry

UNAVAILABLE = WireError.of(ErrorCode.UNAVAILABLE, "")


def pause(
    error: WireError = UNAVAILABLE, budget: RetryBudget | None = None, **changes: object
) -> float | None:
    arguments: dict[str, object] = {
        "timed_out": False,
        "attempt": 1,
        "retry": 1,
        "retry_on_timeout": True,
        "budget": budget or RetryBudget(),
        "remaining_s": 60.0,
        "random": 0.5,
    }
    return pause_before_retry(error, **{**arguments, **changes})  # type: ignore[arg-type]  # keywords by name


@given(st.lists(st.booleans(), max_size=300))
def test_the_budget_is_ten_tokens_less_one_per_failure_plus_a_tenth_per_success(results: list[bool]) -> None:
    budget, tenths = RetryBudget(), 100
    for good in results:
        if good:
            budget.succeeded()
            tenths = min(100, tenths + 1)
        else:
            budget.failed()
            tenths = max(0, tenths - 10)
        assert budget.tokens == tenths / 10
        assert budget.allows() is (tenths > 50)


@given(st.integers(1, 5), st.integers(0, 400))
def test_in_a_total_outage_retries_are_at_most_five(retry: int, requests: int) -> None:
    budget, calls = RetryBudget(), 0
    for _ in range(requests):
        for attempt in range(1, retry + 2):
            calls += 1
            budget.failed()
            if pause(budget=budget, attempt=attempt, retry=retry) is None:
                break
    assert calls - requests <= 5


def test_five_failures_leave_no_retry_and_one_success_gives_it_back() -> None:
    budget = RetryBudget()
    for _ in range(5):
        budget.failed()
    assert not budget.allows()
    budget.succeeded()
    assert budget.allows()


@pytest.mark.parametrize(
    ("asked_ms", "expected"),
    [(None, 0.0125), (5, 0.0125), (400, 0.4), (1_000, 1.0), (1_001, None), (300_000, None)],
)
def test_no_retry_comes_sooner_than_the_extension_asked_for(
    asked_ms: int | None, expected: float | None
) -> None:
    assert pause(WireError.of(ErrorCode.UNAVAILABLE, "", retry_after_ms=asked_ms)) == expected


@given(st.integers(1, 1_000), st.floats(0, 1, exclude_max=True))
def test_a_pause_lies_between_nothing_and_a_doubling_capped_bound(attempt: int, random: float) -> None:
    bound = min(CAP_S, BASE_S * 2 ** min(attempt - 1, 60))
    assert 0 <= backoff(attempt, random) <= bound
    assert backoff(attempt, 0.0) == 0
    assert backoff(attempt, 0.5) == bound / 2


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        pytest.param({}, True, id="a retryable error with time and budget is tried again"),
        pytest.param({"attempt": 2}, False, id="not more often than retry says"),
        pytest.param({"retry": 0}, False, id="never with retry 0"),
        pytest.param({"timed_out": True}, True, id="after a timeout where that is allowed"),
        pytest.param(
            {"timed_out": True, "retry_on_timeout": False}, False, id="not after a timeout otherwise"
        ),
        pytest.param({"remaining_s": 0.02}, False, id="not where the pause would leave no time"),
        pytest.param(
            {"error": WireError.of(ErrorCode.INVALID_ARGUMENT, "")}, False, id="not the caller's faults"
        ),
        pytest.param({"error": WireError.of(ErrorCode.RESOURCE_EXHAUSTED, "")}, False, id="not a 429"),
        pytest.param(
            {"error": WireError(ErrorCode.INTERNAL, "", retryable=False)}, False, id="not what says no"
        ),
    ],
)
def test_what_is_retried(changes: dict[str, object], again: bool) -> None:
    assert (pause(**changes) is not None) is again  # type: ignore[arg-type]  # keywords by name


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(None, 160.0, id="the policy's where the caller asks for none"),
        pytest.param(130.0, 130.0, id="the caller's where it is earlier"),
        pytest.param(500.0, 160.0, id="the policy's where the caller asks for more"),
    ],
)
def test_the_effective_deadline_is(asked: float | None, expected: float) -> None:
    assert effective_deadline(asked, 60.0, 100.0) == expected


def test_an_attempt_ends_ten_milliseconds_before_the_deadline() -> None:
    assert attempt_timeout(5.0, 101.0, 100.0) == pytest.approx(0.99)
    assert attempt_timeout(0.5, 101.0, 100.0) == 0.5
    assert attempt_timeout(0.5, 100.0105, 100.0) < SHORTEST_ATTEMPT_S


def test_the_headers_hold_whole_milliseconds_from_now_and_since_1970() -> None:
    assert header_values(0.25, 1_700_000_000.0) == ("250", "1700000000250")
    assert header_values(0.0001, 1_700_000_000.0)[0] == "1"
