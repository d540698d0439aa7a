"""From two looks at routers to what `beamline top` shows."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_cli.commands.top import lines
from beamline_cli.figures import SORTS, Sort, View, quantile, view

BOUNDS = [0.001, 0.01, 0.1, 1.0]


def counted(requests: int, errors: int, *buckets: int, **more: Any) -> dict[str, Any]:
    return {"requests": requests, "errors": errors, "buckets": list(buckets) or [0] * 5, **more}


def step(
    requests: int, errors: int, *buckets: int, kind: str = "pre", busy: int = 0, breaker: str = "closed"
) -> Any:
    return counted(requests, errors, *buckets, type=kind, in_flight=busy, breaker=breaker)


def look(age: float, requests: dict[str, Any], extensions: dict[str, Any]) -> dict[str, Any]:
    now = {"age_s": age, "revision": 7, "in_flight": 3, "bounds": BOUNDS}
    return {**now, **requests, "extensions": extensions}


def two_routers() -> tuple[dict[str, Any], dict[str, Any]]:
    before = {
        "a": look(
            10.0,
            counted(100, 0, 0, 100, 0, 0, 0),
            {"guard": step(100, 0, 100, 0, 0, 0, 0), "gpt": step(9, 0, 9, 0, 0, 0, 0, kind="provider")},
        ),
        "b": look(900.0, counted(0, 0), {"guard": step(0, 0, busy=1)}),
    }
    after = {
        "a": look(
            12.0,
            counted(140, 2, 0, 120, 20, 0, 0),
            {
                "guard": step(120, 0, 100, 20, 0, 0, 0, busy=1),
                "gpt": step(14, 5, 9, 0, 0, 5, 0, kind="provider", breaker="open"),
                "gone": counted(3, 0, 3, 0, 0, 0, 0, type=None, in_flight=0, breaker="closed"),
            },
        ),
        "b": look(904.0, counted(8, 0, 0, 8, 0, 0, 0), {"guard": step(8, 0, 0, 0, 8, 0, 0, busy=2)}),
    }
    return before, after


def test_rates_are_differences_by_each_routers_own_clock_and_extensions_are_of_all_of_them() -> None:
    found = view(*two_routers(), "name")
    a, b = found.routers
    assert (a.name, a.rate, a.errors, a.in_flight, a.revision) == ("a", 20.0, 2 / 40, 3, 7)
    assert (b.rate, b.errors) == (2.0, 0.0)
    assert a.p50 == pytest.approx(10.0)
    gpt, guard = found.extensions
    assert (guard.rate, guard.errors, guard.in_flight, guard.breaker) == (12.0, 0.0, 3, "closed")
    assert (gpt.rate, gpt.errors, gpt.breaker, gpt.kind) == (2.5, 1.0, "open", "provider")
    assert guard.p99 is not None
    assert 10 < guard.p99 <= 100


def test_the_first_look_has_no_rates_and_a_router_that_started_anew_has_none_either() -> None:
    before, after = two_routers()
    assert {row.rate for row in view({}, after, "rate").routers} == {None}
    restarted = {"a": {**after["a"], "age_s": 1.0}}
    (row,) = view(before, restarted, "rate").routers
    assert (row.rate, row.errors, row.p99) == (None, None, None)


def test_an_extension_that_left_and_came_back_counts_from_nothing() -> None:
    before, after = two_routers()
    after["a"]["extensions"]["guard"] = step(4, 0, 4, 0, 0, 0, 0)
    del before["b"], after["b"]
    guard = next(row for row in view(before, after, "name").extensions if row.name == "guard")
    assert guard.rate == 2.0


def test_without_traffic_there_is_no_share_and_no_time() -> None:
    before, _ = two_routers()
    later = {name: {**said, "age_s": said["age_s"] + 1} for name, said in before.items()}
    found = view(before, later, "p99")
    assert {(row.rate, row.errors, row.p50) for row in [*found.routers, *found.extensions]} == {
        (0.0, None, None)
    }


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("name", "gpt"),
        ("rate", "guard"),
        ("errors", "gpt"),
        ("p50", "gpt"),
        ("p99", "gpt"),
        ("inflight", "guard"),
    ],
)
def test_the_largest_comes_first(sort: Sort, first: str) -> None:
    assert sort in SORTS
    assert view(*two_routers(), sort).extensions[0].name == first


@pytest.mark.parametrize(
    ("share", "buckets", "milliseconds"),
    [
        pytest.param(0.5, [10, 0, 0, 0, 0], 0.5, id="the middle of the first bucket"),
        pytest.param(0.5, [5, 5, 0, 0, 0], 1.0, id="the bound between two"),
        pytest.param(0.99, [0, 100, 0, 0, 0], 9.91, id="linear within a bucket"),
        pytest.param(0.99, [0, 0, 0, 0, 3], 1000.0, id="above the last bound"),
        pytest.param(1.0, [1, 0, 0, 1, 0], 1000.0, id="all of them"),
        pytest.param(0.5, [0, 0, 0, 0, 0], None, id="nothing"),
    ],
)
def test_quantiles_are_as_prometheus_has_them(
    share: float, buckets: list[float], milliseconds: float | None
) -> None:
    found = quantile(share, buckets, BOUNDS)
    assert found == (None if milliseconds is None else pytest.approx(milliseconds))


def test_the_picture_has_both_tables_and_dashes_for_what_was_not_measured() -> None:
    shown = lines(view(*two_routers(), "rate"))
    assert shown[0].split() == ["ROUTER", "REQ/S", "ERRORS", "P50", "P99", "IN", "FLIGHT", "REVISION", "UP"]
    assert shown[1].startswith("a       20.0   5.0%")
    assert [line.split()[0] for line in shown[4:]] == ["EXTENSION", "guard", "gpt"]
    assert "open" in shown[-1]
    empty = lines(View([], []))
    assert empty[-1].startswith("No extension has been called")
    assert lines(view({}, two_routers()[1], "rate"))[1].split()[1:5] == ["-"] * 4
