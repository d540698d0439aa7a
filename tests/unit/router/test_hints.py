"""What authors hear before a limit is met."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_router.core.snapshot import compile_snapshot
from harness.router_world import check, extension, policy, post, pre, provider, providers


def notices(steps: list[dict[str, Any]], **more: Any) -> list[tuple[str, str]]:
    result = compile_snapshot(
        [extension("main", "provider")], [policy("p", steps, **more)], revision=1, previous=None
    )
    assert result.refused == ()
    return [(notice.reason, notice.message.partition(":")[0]) for notice in result.notices]


def nested(levels: int) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for _ in range(levels - 1):
        config = {"in": config}
    return config


NEAR: list[Any] = [
    pytest.param([*[pre()] * 11, provider()], {}, "steps", id="steps"),
    pytest.param([pre(config=nested(12)), provider()], {}, "nesting of a step's config", id="nesting"),
    pytest.param([providers({f"p{n}": 1 for n in range(12)})], {}, "providers", id="providers"),
    pytest.param([provider()], {"fallback": [f"f{n}" for n in range(6)]}, "fallback", id="fallbacks"),
]


@pytest.mark.parametrize(("steps", "more", "what"), NEAR)
def test_nothing_is_said_just_below_four_fifths_of(steps: Any, more: dict[str, Any], what: str) -> None:
    assert ("NearLimit", what) not in notices(steps, **more)


@pytest.mark.parametrize(("steps", "more", "what"), NEAR)
def test_a_hint_is_given_from_four_fifths_on_of(steps: Any, more: dict[str, Any], what: str) -> None:
    grown, wider = list(steps), dict(more)
    match what:
        case "steps":
            grown += [post(), post()]
        case "providers":
            grown = [providers({f"p{n}": 1 for n in range(13)})]
        case "fallback":
            wider = {"fallback": [f"f{n}" for n in range(7)]}
        case _:
            grown[0] = pre(config=nested(13))
    assert ("NearLimit", what) in notices(grown, **wider)


def test_a_complex_policy_is_told_what_to_do() -> None:
    ((reason, message),) = notices([check(), check("b"), check("c"), check("d"), provider()])
    assert reason == "Complex"
    assert message == "complexity 13 is above 10"


def test_a_small_policy_hears_nothing() -> None:
    assert notices([pre(), check(), provider(), post()]) == []
