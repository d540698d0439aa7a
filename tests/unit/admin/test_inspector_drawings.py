"""What the inspector draws, without a page: charts, policies as columns, configs beside their schemas."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from beamline_admin.catalogue import View
from beamline_admin.inspector import spelling
from beamline_admin.inspector.charts import HEIGHT, MAX_POINTS, WIDTH, chart, nice
from beamline_admin.inspector.digest import Digest
from beamline_admin.inspector.drawing import drawing_of, summary_of
from beamline_admin.inspector.fields import fields_of
from beamline_admin.inspector.rollout import rollout_of
from beamline_admin.inspector.traffic import Traffic
from beamline_admin.objects.port import Held
from beamline_contract.objects import ObjectKey
from beamline_contract.projection import ExtensionRecord, PolicyRecord

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def extension(name: str, kind: str = "pre", **fields: Any) -> ExtensionRecord:
    return ExtensionRecord(name, kind, f"beamline.ext.{kind}.{name}.v1", "default", name, name, 1, **fields)


def policy(name: str, *steps: dict[str, Any], **fields: Any) -> PolicyRecord:
    document = {"match": {}, "priority": 0, "deadline_ms": 1, "steps": list(steps), "fallback": [], **fields}
    return PolicyRecord(name, "default", name, f"policy-{name}", 1, document)


def view(*records: ExtensionRecord | PolicyRecord) -> View:
    return View(
        1,
        {one.id: one for one in records if isinstance(one, ExtensionRecord)},
        {one.id: one for one in records if isinstance(one, PolicyRecord)},
    )


PROVIDERS = {
    "action": "select_provider",
    "providers": [{"provider_id": "big", "weight": 3}, {"provider_id": "small", "weight": 1}],
    "canary": {"provider_id": "new", "percent": 5},
    "fallback": ["spare"],
}
STEPS = (
    {"action": "extension_pre", "extension_id": "tidy"},
    {"action": "extension_validator", "extension_id": "a", "group": "checks"},
    {"action": "extension_validator", "extension_id": "b", "group": "checks", "mode": "shadow"},
    {"action": "extension_validator", "extension_id": "c", "name": "late"},
    PROVIDERS,
    {"action": "extension_post", "extension_id": "mask", "fallback_id": "spare"},
)


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, 1), (0.3, 1), (1, 1), (1.2, 2), (2.2, 2.5), (26, 50), (99, 100), (101, 200), (740, 1000)],
)
def test_an_axis_ends_at_a_round_number(value: float, top: float) -> None:
    assert nice(value) == pytest.approx(top)


def test_a_chart_stays_in_its_frame_and_has_no_more_points_than_can_be_seen() -> None:
    drawn = chart(("load", "plain", [float(number % 37) for number in range(361)]))
    points = re.findall(r"(-?[\d.]+),(-?[\d.]+)", drawn.series[0].line)
    assert len(points) <= MAX_POINTS
    assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in points)
    assert (drawn.top, drawn.empty) == (50, False)


def test_a_gap_divides_a_line_and_a_lonely_point_can_be_seen() -> None:
    line = chart(("p99", "plain", [1.0, 2.0, None, 3.0, None])).series[0]
    assert line.line.count("M") == 2
    assert line.line.endswith("450,38.4 458,38.4")
    last = chart(("p99", "plain", [None, 3.0])).series[0]
    assert last.line == "M592,38.4 600,38.4", "at the edge it stays in the frame"
    assert (line.last, line.highest) == (3.0, 3.0)
    assert chart(("p99", "plain", [None, None])).empty
    assert chart(("p99", "plain", [])).series[0].line == ""


def test_a_policy_has_a_column_for_what_happens_at_one_time() -> None:
    digest = Digest.of(view(*map(extension, ("tidy", "a", "b", "c", "mask")), policy("one", *STEPS)))
    drawing = drawing_of(digest.lines["one"], digest, None)
    assert [(column.type, [box.id for box in column.boxes]) for column in drawing.columns] == [
        ("pre", ["tidy"]),
        ("validator", ["a", "b"]),
        ("validator", ["c"]),
        ("provider", ["new", "big", "small"]),
        ("post", ["mask"]),
    ]
    checks, _, provider, post = drawing.columns[1:]
    assert [box.shadow for box in checks.boxes] == [False, True]
    assert "in parallel" in checks.how
    assert [(box.share, box.canary) for box in provider.boxes] == [(None, 5.0), (75.0, None), (25.0, None)]
    assert [box.id for box in provider.fallback] == ["spare"]
    assert (provider.how, post.boxes[0].fallback) == ("by weight", "spare")
    assert {box.fault for box in provider.boxes} == {"unknown"}
    assert summary_of(digest.lines["one"]) == [
        ("pre", 1, 0), ("validator", 3, 0), ("provider", 2, 1), ("post", 1, 1),
    ]  # fmt: skip


def test_counts_stand_on_the_edges_by_the_names_of_steps() -> None:
    digest = Digest.of(view(policy("one", *STEPS)))
    steps = {name: {"requests": count, "errors": 0} for name, count in
             {"tidy": 10, "a": 9, "b": 9, "late": 8, "provider": 7, "mask": 6}.items()}  # fmt: skip
    told = Traffic.of({"policies": {"one": {"requests": 10, "errors": 3, "steps": steps}}})
    drawing = drawing_of(digest.lines["one"], digest, told.policies["one"])
    assert [flow.requests for flow in drawing.flows if flow] == [10, 9, 8, 7, 6]
    assert drawing.arrivals is not None
    assert drawing.arrivals.errors == 3


def test_overlapping_validators_stand_beside_each_other() -> None:
    overlap = [{"action": "extension_validator", "extension_id": name, "overlap": True} for name in "ab"]
    digest = Digest.of(view(policy("one", *overlap, PROVIDERS)))
    columns = drawing_of(digest.lines["one"], digest, None).columns
    assert [len(column.boxes) for column in columns] == [2, 3]
    assert columns[0].how == "beside the provider call"


def test_a_digest_reads_a_policy_once_and_follows_what_extensions_become() -> None:
    guard, one = extension("a"), policy("one", STEPS[1])
    before = view(guard, one)
    first = Digest.of(before)
    second = Digest.of(View(2, {"a": extension("a", enabled=False)}, before.policies), first)
    assert second.lines["one"] is first.lines["one"]
    assert (first.hints(first.lines["one"]), list(first.hinted())) == ([], [])
    assert second.hints(second.lines["one"]) == ["a is disabled: its step is skipped or fails"]


def test_a_tenant_sees_its_policies_those_of_everybody_and_what_they_use() -> None:
    def of(name: str, *tenants: str) -> PolicyRecord:
        step = {"action": "extension_pre", "extension_id": f"for_{name}"}
        return policy(name, step, match={"tenants": list(tenants)} if tenants else {})

    names = ("mine", "theirs", "all")
    digest = Digest.of(
        view(
            *(extension(f"for_{name}") for name in (*names, "none")),
            of("mine", "acme"),
            of("theirs", "x"),
            of("all"),
        )
    )
    seen = digest.seen_by(frozenset({"acme"}))
    assert sorted(seen.lines) == ["all", "mine"]
    assert sorted(seen.extensions) == ["for_all", "for_mine"]
    assert digest.seen_by(None) is digest
    assert not digest.seen_by(frozenset()).lines.keys() - {"all"}


SCHEMA = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {"type": "string", "description": "Which one."},
        "max": {"type": "integer", "minimum": 1, "maximum": 9, "default": 5},
        "words": {"type": "array", "items": {"enum": ["a", "b"]}},
        "inner": {"type": "object", "properties": {"deep": {"type": "boolean"}}},
    },
    "additionalProperties": False,
}


def test_a_config_is_shown_beside_its_schema_with_what_does_not_fit() -> None:
    config = {"max": 10, "words": ["a", "z"], "inner": {"deep": "yes"}, "more": 1}
    found = fields_of(config, SCHEMA)
    by_path = {one.path: one for one in found.items}
    assert list(by_path) == ["model", "max", "words", "inner.deep", "more"]
    assert (by_path["model"].stated, by_path["model"].required) == (False, True)
    assert (by_path["max"].rule, by_path["max"].default) == ("integer, minimum 1, maximum 9", 5)
    assert "greater than the maximum" in by_path["max"].fault
    assert (by_path["words"].rule, bool(by_path["words"].fault)) == ("list of one of a, b", True)
    assert by_path["inner.deep"].fault
    assert not by_path["more"].known
    assert "'model' is a required property" in found.fault
    assert found.faults == 4


def test_a_fitting_config_has_no_faults_and_no_schema_no_opinion() -> None:
    assert fields_of({"model": "m"}, SCHEMA).faults == 0
    plain = fields_of({"model": 1}, None)
    assert (plain.schema, plain.faults, plain.items[0].path) == (False, 0, "model")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        pytest.param({"type": "strange"}, "the schema itself is wrong", id="a schema that is none"),
        pytest.param({"$ref": "#/nowhere"}, "the schema can't be used", id="a reference that leads nowhere"),
    ],
)
def test_a_wrong_schema_is_said_and_the_config_still_shown(schema: dict[str, Any], said: str) -> None:
    found = fields_of({"a": 1}, schema)
    assert said in found.fault
    assert [one.path for one in found.items] == ["a"]


@pytest.mark.parametrize(
    ("state", "step", "places"),
    [
        pytest.param("Waiting", 0, ["later", "later"], id="before it began"),
        pytest.param("Progressing", 1, ["now", "later"], id="in its first step"),
        pytest.param("Promoted", 2, ["done", "done"], id="promoted"),
        pytest.param("RolledBack", 2, ["done", "now"], id="rolled back in its second step"),
    ],
)
def test_a_rollout_says_which_steps_are_done(state: str, step: int, places: list[str]) -> None:
    spec = {"versionOf": "base", "canary": {"steps": [{"weight": 5}, {"weight": 50}]}}
    status = {"canary": {"state": state, "step": step, "weight": 5}}
    held = Held(ObjectKey("Extension", "default", "v2"), {"spec": spec, "status": status})
    rollout = rollout_of(held)
    assert rollout is not None
    assert [one.place for one in rollout.steps] == places
    assert rollout_of(None) is None
    assert rollout_of(Held(held.key, {"spec": {"canary": {"steps": "wrong"}}})) is None


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=59), "59 min ago"),
        (timedelta(hours=23), "23 h ago"),
        (timedelta(days=29), "29 d ago"),
        (timedelta(days=59), "2026-01-01"),
    ],
)
def test_times_are_relative_in_one_unit(before: timedelta, text: str) -> None:
    assert spelling.ago((NOW - before).isoformat(), NOW) == text


def test_what_is_no_time_stays_what_it_is() -> None:
    assert spelling.ago("<b>", NOW) == "<b>"
    assert spelling.exact(None) == spelling.NOTHING
    assert spelling.exact("2026-03-01T12:00:00+01:00") == "2026-03-01 11:00:00 UTC"


def test_numbers_are_short_and_people_have_names() -> None:
    assert [spelling.figure(value) for value in (0, 0.04, 12.0, 1234567.89)] == [
        "0", "0", "12", "1\u202f234\u202f567.9",
    ]  # fmt: skip
    assert [spelling.millis(value) for value in (None, 0.25, 99.9, 812.4, 12_000)] == [
        spelling.NOTHING, "0.2\u00a0ms", "99.9\u00a0ms", "812\u00a0ms", "12\u00a0s",
    ]  # fmt: skip
    assert spelling.share(1, 3) == "33.3\u00a0%"
    assert spelling.who("system:serviceaccount:argocd:controller") == "argocd/controller"
    assert spelling.who("") == "unknown"
