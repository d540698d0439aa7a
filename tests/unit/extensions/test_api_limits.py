"""The client-side limit of requests and tokens per minute, and what answers cost."""

from __future__ import annotations

import pytest

from beamline_extensions.model_api.prices import LIST_PRICES, Price, cost_usd, price_of
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


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-4", (30, 60)),
        ("gpt-4-0613", (30, 60)),
        ("gpt-4o-2024-08-06", (2.5, 10)),
        ("gpt-4o-mini-2024-07-18", (0.15, 0.6)),
        ("claude-3-opus-20240229", (15, 75)),
        ("claude-3-5-haiku-latest", (0.8, 4)),
        ("gpt-4o-audio-preview", None),
        ("llama3", None),
    ],
)
def test_a_dated_model_costs_what_its_name_costs_and_others_are_unknown(
    model: str, price: tuple[float, float] | None
) -> None:
    found = price_of(model, {}, LIST_PRICES)
    assert (None if found is None else (found.input, found.output)) == price


def test_a_price_of_the_configuration_wins() -> None:
    own = {"gpt-4": Price(input=1, output=2)}
    found = price_of("gpt-4-0613", own, LIST_PRICES)
    assert found == own["gpt-4"]
    assert cost_usd(found, 1_000_000, 500_000) == 2
