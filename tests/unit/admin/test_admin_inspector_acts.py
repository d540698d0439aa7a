"""What the acting pages are made of: differences, weights, waterfalls and explanations, as values."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_admin.inspector.differences import Line, lines_of
from beamline_admin.inspector.explained import explained_of
from beamline_admin.inspector.pages.playground import body_of, headers_of
from beamline_admin.inspector.spelling import NOTHING
from beamline_admin.inspector.waterfall import MIN_WIDTH, WIDTH, Trail, bars_of
from beamline_admin.inspector.weights import groups_of, laid_into
from beamline_admin.problems import ProblemError

STEPS = [
    {"action": "extension_pre", "extensionRef": {"name": "a"}},
    {"action": "select_provider", "providers": [
        {"extensionRef": {"name": "mock-one"}, "weight": 90}, {"extensionRef": {"name": "two"}}]},
]  # fmt: skip

CHANGES: list[Any] = [
    pytest.param(
        {"spec.enabled": {"from": True, "to": False}}, [("spec.enabled", "true", "false")], id="a value"
    ),
    pytest.param(
        {"spec.retry": {"from": None, "to": 2}}, [("spec.retry", NOTHING, "2")], id="one that was not there"
    ),
    pytest.param(
        {"spec.a": {"from": [{"w": 1, "x": 1}, {"w": 2}], "to": [{"w": 1, "x": 1}, {"w": 3}]}},
        [("spec.a[1].w", "2", "3")],
        id="one field in a list that keeps its length",
    ),
    pytest.param({"spec.a": {"from": [1], "to": [1, 2]}}, [("spec.a", "[1]", "[1, 2]")], id="a longer list"),
    pytest.param(
        {"spec.a": {"from": {"x": 1}, "to": {"y": "<b>"}}},
        [("spec.a.x", "1", NOTHING), ("spec.a.y", NOTHING, '"<b>"')],
        id="a field that went and one that came",
    ),
    pytest.param({"spec.a": {"from": 1, "to": True}}, [("spec.a", "1", "true")], id="another type"),
    pytest.param({"spec.a": {"from": 1, "to": 1}}, [], id="nothing"),
]


@pytest.mark.parametrize(("changes", "lines"), CHANGES)
def test_a_change_is_a_line_per_field(changes: Any, lines: Any) -> None:
    assert lines_of(changes) == [Line(*line) for line in lines]


def test_weights_are_read_and_laid_into_the_spec_without_writing_defaults() -> None:
    spec = {"steps": STEPS}
    (group,) = groups_of(spec, {"w1.0": "10"})
    assert [(one.id, one.before, one.after) for one in group.choices] == [("mock_one", 90, 10), ("two", 1, 1)]
    assert group.strategy == "weighted"
    made = laid_into(spec, [group])
    assert made["steps"][1]["providers"] == [
        {"extensionRef": {"name": "mock-one"}, "weight": 10}, {"extensionRef": {"name": "two"}},
    ]  # fmt: skip
    assert spec["steps"][1]["providers"][0]["weight"] == 90, "the spec that was read stays as it is"


@pytest.mark.parametrize("text", ["", "-1", "1001", "1.5", "ten", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 5000])
def test_what_is_no_weight_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(ProblemError, match="whole number from 0 to 1000") as refused:
        groups_of({"steps": STEPS}, {"w1.1": text})
    assert refused.value.field == "w1.1"


def test_bars_lie_where_steps_ran_and_can_always_be_seen() -> None:
    trail = {
        "latency_ms": 100.0,
        "steps": [
            {"name": "late", "action": "select_provider", "start_ms": 50.0, "ms": 50.0, "outcome": "ok"},
            {"name": "first", "action": "extension_pre", "start_ms": 0.0, "ms": 0.001, "outcome": "error"},
        ],
    }
    first, late = bars_of(trail)
    assert (first.name, first.x, first.width, first.look) == ("first", 0.0, MIN_WIDTH, "bad")
    assert (late.x, late.width, late.type) == (WIDTH / 2, WIDTH / 2, "provider")


def test_a_step_that_ends_after_the_answer_widens_the_drawing() -> None:
    steps = [{"name": "s", "start_ms": 10.0, "ms": 190.0, "outcome": "shadow", "mode": "shadow"}]
    trail = Trail.of({"latency_ms": 100.0, "steps": steps})
    assert trail.span_ms == 200.0
    assert trail.bars[0].x + trail.bars[0].width <= WIDTH
    assert "recorded only" in trail.bars[0].title


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"steps": None, "latency_ms": "much", "error": {}},
        {"status": "error"},
        {"steps": ["x", {"ms": True}]},
    ],
    ids=["nothing", "other types", "an error without words", "steps that are none"],
)
def test_a_router_of_another_release_breaks_no_page(found: Any) -> None:
    trail = Trail.of(found)
    assert trail.request_id == ""
    assert (trail.error is not None) == (found.get("status") == "error")


def test_an_explanation_names_each_call_its_chance_and_what_follows_a_failure() -> None:
    result = {
        "revision": 7,
        "policy": {"id": "main", "because": "it matches", "hints": []},
        "deadline_ms": 1000,
        "steps": [
            {
                "step": "guard",
                "extension_id": "guard",
                "failure_mode": "closed",
                "mode": "shadow",
                "live": {"breaker": "open"},
            },
            {
                "step": "provider",
                "first": None,
                "fallback": [{"extension_id": "spare"}],
                "providers": [
                    {"extension_id": "one", "share": 0.9},
                    {"extension_id": "two", "absent": "disabled"},
                ],
            },
        ],
        "others": [{"policy": "other", "because": "match.tenants does not hold"}],
        "others_total": 1,
    }
    found = explained_of({"instance": "r1", "result": result})
    said = [
        (call.extension, call.kind, call.note, call.absent, call.breaker, call.on_failure)
        for call in found.calls
    ]
    assert said == [
        ("guard", "shadow", "", "", "open", "it is recorded, and nothing else"),
        ("one", "", "90 % of the requests", "", "", "the next provider"),
        ("two", "", "", "disabled", "", "the next provider"),
        ("spare", "", "fallback", "", "", "the next one, or the request fails"),
    ]
    assert (found.policy, found.others) == ("main", (("other", "match.tenants does not hold"),))


def test_an_explanation_says_who_is_first_for_this_request_beside_the_shares_of_all() -> None:
    step: dict[str, Any] = {
        "step": "provider",
        "first": "two",
        "canary": {"extension_id": "new", "percent": 5, "asked": False},
        "providers": [{"extension_id": name, "share": 0.5} for name in ("one", "two")],
    }
    asked = {"step": "provider", "canary": {**step["canary"], "asked": True}, "providers": []}
    found = explained_of({"instance": "r1", "result": {"steps": [step, asked]}})
    assert [(call.extension, call.note) for call in found.calls] == [
        ("new", "canary, 5 % of the requests"),
        ("one", "50 % of the requests"),
        ("two", "first, 50 % of the requests"),
        ("new", "first, canary, 5 % of the requests"),
    ]


@pytest.mark.parametrize("answer", [{"instance": "r"}, {"instance": "r", "error": {"code": "INTERNAL"}}])
def test_a_router_that_explains_nothing_says_why(answer: Any) -> None:
    assert explained_of(answer).error in {"it gave no answer", "INTERNAL"}


def test_a_form_of_the_playground_means_a_request() -> None:
    fields = dict.fromkeys(("model", "tenant", "environment", "policy", "compare", "headers"), "")
    body = body_of(
        {
            **fields,
            "prompt": "a\r\nb",
            "tenant": " acme ",
            "policy": "acme-chat",
            "headers": "X-Team: red:2\n",
        }
    )
    assert body.request == {"prompt": "a\nb", "tenant_id": "acme"}
    assert (body.policy, body.compare, body.headers) == ("acme_chat", None, {"X-Team": "red:2"})


@pytest.mark.parametrize("text", ["no colon", "bad name: x", "x: \x7f", ": empty"])
def test_a_header_that_is_none_is_refused(text: str) -> None:
    fields = dict.fromkeys(("model", "tenant", "environment", "policy", "compare"), "")
    with pytest.raises(ProblemError, match="header"):
        body_of({**fields, "prompt": "x", "headers": text})
    assert headers_of("") == {}
