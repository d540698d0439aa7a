"""The client-side limit of requests and tokens per minute, and what answers cost."""

from __future__ import annotations

import pytest

from beamline_extensions.model_api.prices import Price, cost_usd, price_of
from beamline_extensions.model_api.rate_limit import RateLimit


def admit(
    limit: RateLimit, now: float, tokens: int = 0, *, rpm: int | None = None, tpm: int | None = None
) -> float:
    return limit.admit(now, tokens, per_minute=rpm, tokens_per_minute=tpm)


def test_so_many_requests_in_any_minute_and_no_more() -> None:
    limit = RateLimit()
    assert [admit(limit, 0.5, rpm=2), admit(limit, 30.0, rpm=2)] == [0, 0]
    assert admit(limit, 59.9, rpm=2) == pytest.approx(0.1)
    assert admit(limit, 60.1, rpm=2) == 0
    assert admit(limit, 60.2, rpm=2) == pytest.approx(29.8)


def test_tokens_count_the_estimate_and_then_what_was_used() -> None:
    limit = RateLimit()
    assert admit(limit, 1, 80, tpm=100) == 0
    assert admit(limit, 2, 30, tpm=100) == pytest.approx(59)
    limit.correct(80, 10)
    assert admit(limit, 2, 30, tpm=100) == 0


def test_a_request_beyond_the_whole_limit_goes_when_it_is_alone() -> None:
    limit = RateLimit()
    assert admit(limit, 1, 500, tpm=100) == 0
    assert admit(limit, 2, 1, tpm=100) > 0
    assert admit(limit, 62, 500, tpm=100) == 0


def test_a_changed_limit_holds_at_once() -> None:
    limit = RateLimit()
    assert admit(limit, 1, rpm=1) == 0
    assert admit(limit, 1, rpm=1) > 0
    assert admit(limit, 1, rpm=2) == 0
    assert admit(limit, 1) == 0


def test_a_refused_request_is_not_counted() -> None:
    limit = RateLimit()
    admit(limit, 0, rpm=1)
    for _ in range(100):
        admit(limit, 1, rpm=1)
    assert admit(limit, 60, rpm=1) == 0


PRICES = {"big": Price(input=3, output=6), "big-0613": Price(input=1, output=2)}


@pytest.mark.parametrize(
    ("model", "price"),
    [
        pytest.param("big", "big", id="a stated model"),
        pytest.param("big-2024-08-06", "big", id="a dated version of it"),
        pytest.param("big-20240229", "big", id="dated in eight digits"),
        pytest.param("big-latest", "big", id="its latest version"),
        pytest.param("big-0613", "big-0613", id="a version with a price of its own"),
        pytest.param("big-audio", None, id="another model of the family"),
        pytest.param("gpt-4", None, id="a known model that nobody has stated"),
    ],
)
def test_a_model_costs_what_the_configuration_says(model: str, price: str | None) -> None:
    assert price_of(model, PRICES) == (None if price is None else PRICES[price])


def test_without_prices_no_model_has_one() -> None:
    assert price_of("gpt-4", {}) is None


def test_a_price_is_for_a_million_tokens() -> None:
    assert cost_usd(Price(input=1, output=2), 1_000_000, 500_000) == 2
