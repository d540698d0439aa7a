"""Limits of tenants: what is granted, when to come back, and how much is remembered."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beamline_router.core.tenant_limits import (
    Accounts,
    Limits,
    LimitsFaultError,
    Refusal,
    TenantLimits,
    read_limits,
    read_tenant_limits,
)

TEN = Limits(rate=10.0, burst=5.0)
STEPS = st.lists(st.tuples(st.floats(0.0, 2.0), st.booleans()), max_size=200)


@given(STEPS, st.floats(0.5, 50.0), st.integers(1, 20))
def test_nobody_gets_more_than_the_burst_and_what_came_in_since(
    steps: list[tuple[float, bool]], rate: float, burst: int
) -> None:
    accounts, limits, now, granted = Accounts(), Limits(rate=rate, burst=float(burst)), 100.0, 0
    for wait, _ in steps:
        now += wait
        granted += not isinstance(accounts.take("acme", limits, now), Refusal)
        assert granted <= burst + rate * (now - 100.0) + 1e-6


@given(STEPS, st.integers(1, 5))
def test_nobody_has_more_in_flight_than_allowed_and_what_ends_makes_room(
    steps: list[tuple[float, bool]], concurrency: int
) -> None:
    accounts, limits, running = Accounts(), Limits(concurrency=concurrency), 0
    for _, ends in steps:
        if ends and running:
            accounts.give("acme")
            running -= 1
        elif not isinstance(accounts.take("acme", limits, 0.0), Refusal):
            running += 1
        assert running <= concurrency
        assert accounts.in_flight("acme") == running
    for _ in range(running):
        accounts.give("acme")
    assert not isinstance(accounts.take("acme", limits, 0.0), Refusal)


@given(STEPS)
@example([(0.5, False)] + 5 * [(0.0, False)])  # (0.6 - 0.5) * 10 is less than 1
def test_who_comes_back_when_told_is_let_in(steps: list[tuple[float, bool]]) -> None:
    accounts, now = Accounts(), 0.0
    for wait, _ in steps:
        now += wait
        found = accounts.take("acme", TEN, now)
        if isinstance(found, Refusal):
            assert found.what == "rate"
            now += found.retry_after_ms / 1000.0
            assert not isinstance(accounts.take("acme", TEN, now), Refusal)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=400), st.floats(0.0, 0.05))
def test_memory_is_bounded_whatever_names_come_and_no_name_gets_more_by_it(
    names: list[int], wait: float
) -> None:
    accounts, now, granted = Accounts(max_accounts=8), 0.0, dict.fromkeys(range(61), 0)
    for name in names:
        now += wait
        found = accounts.take(f"t{name}", TEN, now)
        if not isinstance(found, Refusal):
            granted[name] += 1
            accounts.give(found)
        assert len(accounts) <= 9  # and the one that all others share
        assert granted[name] <= 2 * TEN.burst + TEN.rate * now + 1e-6  # its own account, and the shared one


def test_a_million_names_leave_no_more_than_the_bound_behind() -> None:
    accounts = Accounts(max_accounts=1_000)
    for number in range(1_000_000):
        found = accounts.take(f"tenant-{number}", TEN, number / 1_000_000)
        if not isinstance(found, Refusal):
            accounts.give(found)
    assert len(accounts) <= 1_001


@pytest.mark.parametrize("ended", [False, True], ids=["with requests under way", "without"])
@pytest.mark.parametrize("room", [10, 10_000], ids=["no room for all", "room for all"])
def test_a_flood_of_names_does_not_refill_the_bucket_of_a_tenant_that_is_there(
    ended: bool, room: int
) -> None:
    accounts = Accounts(max_accounts=room)
    for _ in range(5):
        accounts.take("acme", TEN, 0.0)
    for _ in range(5 if ended else 0):
        accounts.give("acme")
    for number in range(1_000):
        accounts.take(f"invented-{number}", TEN, 0.0)
    assert isinstance(accounts.take("acme", TEN, 0.0), Refusal)


def test_idle_tenants_are_forgotten_as_others_come() -> None:
    accounts = Accounts()
    for number in range(1_000):
        found = accounts.take(f"t{number}", TEN, float(number))
        assert isinstance(found, str)
        accounts.give(found)
    assert len(accounts) < 10


def test_one_that_is_busy_keeps_no_idle_one_here() -> None:
    accounts = Accounts(max_accounts=8)
    accounts.take("long stream", TEN, 0.0)
    for number in range(100):
        name = f"t{number}"
        assert accounts.take(name, TEN, float(number)) == name
        accounts.give(name)
    assert accounts.in_flight("long stream") == 1


def test_a_refusal_for_concurrency_takes_no_token() -> None:
    limits = Limits(rate=1.0, burst=2.0, concurrency=1.0)
    accounts = Accounts()
    accounts.take("acme", limits, 0.0)
    found = accounts.take("acme", limits, 0.0)
    assert isinstance(found, Refusal)
    assert found.what == "concurrency"
    accounts.give("acme")
    assert not isinstance(accounts.take("acme", limits, 0.0), Refusal)


def test_what_is_undone_was_never_taken() -> None:
    accounts, one = Accounts(), Limits(rate=1.0, burst=1.0, concurrency=1.0)
    accounts.take("acme", one, 0.0)
    accounts.undo("acme")
    assert not isinstance(accounts.take("acme", one, 0.0), Refusal)


def test_a_clock_that_stands_or_a_limit_that_changes_grants_nothing_extra() -> None:
    accounts = Accounts()
    for _ in range(5):
        accounts.take("acme", TEN, 50.0)
    assert isinstance(accounts.take("acme", TEN, 10.0), Refusal)
    assert isinstance(accounts.take("acme", Limits(rate=10.0, burst=500.0), 50.0), Refusal)


def test_a_tenants_own_limits_go_before_the_default() -> None:
    limits = read_tenant_limits(
        {"default": {"requestsPerSecond": 5}, "tenants": {"acme": {"concurrency": 3}}},
        "limits.yaml",
        Limits(),
    )
    assert limits.of("acme") == Limits(concurrency=3.0)
    assert limits.of("other") == Limits(rate=5.0, burst=5.0)
    assert not limits.endless


def test_without_any_limit_there_is_nothing_to_count() -> None:
    assert TenantLimits().endless
    assert read_tenant_limits(None, "limits.yaml", Limits()).of("acme") == Limits(inf, inf, inf)


FAULTS: list[Any] = [
    pytest.param([], "must hold `default:` and `tenants:`", id="a list"),
    pytest.param({"tenant": {}}, "unknown field 'tenant'", id="a typo"),
    pytest.param({"default": {"rate": 1}}, "default: unknown field 'rate'", id="an unknown limit"),
    pytest.param({"tenants": {"a": 5}}, "tenants.a must hold", id="a number for a tenant"),
    pytest.param({"tenants": ["a"]}, "tenants must be a map", id="a list of tenants"),
    pytest.param({"default": {"requestsPerSecond": 0}}, "requestsPerSecond must be a number", id="zero"),
    pytest.param({"default": {"concurrency": True}}, "concurrency must be a number", id="true"),
    pytest.param({"default": {"burst": 5}}, "burst needs requestsPerSecond", id="a burst alone"),
    pytest.param({"default": {"concurrency": "5"}}, "concurrency must be a number", id="text"),
]


@pytest.mark.parametrize(("document", "words"), FAULTS)
def test_faulty_limits_are_named_by_field(document: Any, words: str) -> None:
    with pytest.raises(LimitsFaultError) as raised:
        read_tenant_limits(document, "limits.yaml", Limits())
    assert words in str(raised.value)


def test_a_rate_below_one_lets_one_through_at_a_time() -> None:
    limits = read_limits({"requestsPerSecond": 0.1}, "limits")
    accounts = Accounts()
    assert not isinstance(accounts.take("acme", limits, 0.0), Refusal)
    found = accounts.take("acme", limits, 0.0)
    assert isinstance(found, Refusal)
    assert found.retry_after_ms == 10_000
