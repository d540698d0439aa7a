"""Instants have one spelling, and health reports add up whatever stands in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from beamline_contract.reports import HealthDelta
from beamline_registry import instants
from beamline_registry.tally import Tally, tally

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        pytest.param(NOON, "2026-03-01T12:00:00Z", id="whole seconds as Kubernetes writes them"),
        pytest.param(NOON + timedelta(microseconds=5), "2026-03-01T12:00:00.000005Z", id="fractions"),
        pytest.param(NOON.astimezone(timezone(timedelta(hours=-5))), "2026-03-01T12:00:00Z", id="elsewhere"),
    ],
)
def test_an_instant_is_spelled_in_utc_and_read_back(instant: datetime, text: str) -> None:
    assert instants.spell(instant) == text
    assert instants.parse(text) == instant


@pytest.mark.parametrize("text", ["", None, "soon", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_what_names_no_instant_is_none(text: str | None) -> None:
    assert instants.parse(text) is None


def test_reports_of_several_routers_become_one_tally_per_extension() -> None:
    assert tally(
        [
            HealthDelta(extension_id="b", success=1, latency_ms_sum=5, last_success="2026-03-01T12:00:00Z"),
            HealthDelta(extension_id="a", failure=2, last_failure="2026-03-01T12:00:00Z"),
            HealthDelta(extension_id="b", success=2, latency_ms_sum=7, last_success="2026-03-01T11:00:00Z"),
        ]
    ) == [Tally("a", 0, 2, 0.0, None, NOON), Tally("b", 3, 0, 12.0, NOON, None)]


def test_impossible_numbers_count_as_none() -> None:
    nonsense = HealthDelta(extension_id="a", success=-1, failure=10**13, latency_ms_sum=float("inf"))
    assert tally([nonsense]) == [Tally("a", 0, 0, 0.0, None, None)]
