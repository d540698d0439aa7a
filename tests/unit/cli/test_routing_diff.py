"""``beamline diff``: what another set of manifests means for requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamline_cli.main import main
from beamline_cli.routing.classes import fate_text
from beamline_cli.routing.compare import RoutingDiff, compare
from beamline_cli.routing.sources import live
from beamline_cli.routing.table import table_of

ROOT = Path(__file__).resolve().parents[3]
Captured = pytest.CaptureFixture[str]
Document = dict[str, Any]


def extension(name: str, type_: str = "provider", **spec: Any) -> Document:
    return _object("Extension", name, {"type": type_, **spec})


def policy(name: str, *providers: str, match: Document | None = None, **more: Any) -> Document:
    choices = [{"extensionRef": {"name": one}} for one in providers or ("mock",)]
    step = {"action": "select_provider", "providers": choices, **more.pop("step", {})}
    steps = [*more.pop("pre", ()), step]
    return _object("RoutingPolicy", name, {"match": match or {}, "steps": steps, **more})


def _object(kind: str, name: str, spec: Document) -> Document:
    meta = {"name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z", "uid": name}
    return {"apiVersion": "beamline.io/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}


def between(before: list[Document], after: list[Document]) -> RoutingDiff:
    now = table_of(live(before))
    return compare(now, table_of(live(after), now))


def said(found: RoutingDiff) -> list[str]:
    """Every difference of policies and requests in one line each."""
    lines = [
        f"{one.policy} {one.change}" + (f": {detail.at}: {detail.before} -> {detail.after}" if detail else "")
        for one in found.policies
        for detail in (one.details or (None,))
    ]
    return lines + [
        f"{row.tenant}/{row.environment}/{row.model}/{row.headers}: "
        f"{fate_text(row.before)} -> {fate_text(row.after)}"
        for row in found.requests
    ]


BASE = [extension("mock"), extension("other"), extension("guard", "validator"), policy("default")]
GUARD = {"action": "extension_validator", "extensionRef": {"name": "guard"}}

CASES: list[tuple[str, list[Document], list[Document], list[str]]] = [
    ("a word in metadata", BASE, [extension("mock", metadata={"team": "red"}), *BASE[1:]], []),
    (
        "the timeout of an extension",
        BASE,
        [extension("mock", timeoutMs=9000), *BASE[1:]],
        ["default changes: step select_provider: provider mock.timeout_ms: 5000 -> 9000"],
    ),
    (
        "a timeout that the step overrides anyway",
        [*BASE[:3], policy("default", step={"timeoutMs": 100})],
        [extension("mock", timeoutMs=9000), *BASE[1:3], policy("default", step={"timeoutMs": 100})],
        [],
    ),
    (
        "another deadline and a guard",
        BASE,
        [*BASE[:3], policy("default", deadlineMs=1000, pre=[GUARD])],
        [
            "default changes: deadline_ms: 60000 -> 1000",
            "default changes: step validator guard: None -> there",
        ],
    ),
    (
        "shares of providers",
        [*BASE[:3], policy("default", "mock", "other", step={"strategy": "weighted"})],
        [
            *BASE[:3],
            policy(
                "default",
                step={
                    "strategy": "weighted",
                    "providers": [
                        {"extensionRef": {"name": "mock"}, "weight": 3},
                        {"extensionRef": {"name": "other"}, "weight": 1},
                    ],
                },
            ),
        ],
        [
            "default changes: step select_provider: provider mock.share: 0.5 -> 0.75",
            "default changes: step select_provider: provider mock.weight: 1 -> 3",
            "default changes: step select_provider: provider other.share: 0.5 -> 0.25",
        ],
    ),
    (
        "a fallback, and a provider taken out",
        [*BASE[:3], policy("default", "mock", "other")],
        [*BASE[:3], policy("default", "mock", fallback=[{"extensionRef": {"name": "other"}}])],
        [
            "default changes: step select_provider: provider other: weight 1 -> None",
            "default changes: step select_provider: fallback: None -> ['other']",
        ],
    ),
    (
        "a strategy",
        [*BASE[:3], policy("default", "mock", "other", step={"strategy": "ordered"})],
        [*BASE[:3], policy("default", "mock", "other", step={"strategy": "latency"})],
        ["default changes: step select_provider: strategy: ordered -> latency"],
    ),
    (
        "a policy for one tenant's models",
        BASE,
        [*BASE, policy("acme", "other", match={"tenants": ["acme"], "models": ["gpt-4*"]})],
        [
            "acme appears: match.tenants: None -> ['acme']",
            "acme appears: match.models: None -> ['gpt-4*']",
            "acme appears: step select_provider: None -> ['other']",
            "acme/any/gpt-4*/any: default -> acme",
        ],
    ),
    (
        "the last policy",
        BASE,
        BASE[:3],
        ["default vanishes", "any/any/any/any: default -> NOT_FOUND"],
    ),
    (
        "a part of the requests",
        BASE,
        [*BASE, policy("canary", "other", priority=5, match={"percent": 10})],
        [
            "canary appears: match.percent: None -> 10",
            "canary appears: step select_provider: None -> ['other']",
            "any/any/any/any: default -> canary 10 %, else default",
        ],
    ),
    (
        "who wins, by priority alone",
        [*BASE, policy("second", "other", priority=-1)],
        [*BASE, policy("second", "other", priority=1)],
        ["second changes: priority: -1 -> 1", "any/any/any/any: default -> second"],
    ),
    (
        "a header and an environment",
        BASE,
        [*BASE, policy("red", "other", match={"headers": {"x-team": "red, blue"}, "environments": ["prod"]})],
        [
            "red appears: match.environments: None -> ['prod']",
            "red appears: match.headers: None -> {'x-team': 'red, blue'}",
            "red appears: step select_provider: None -> ['other']",
            "any/prod/any/x-team: red, blue: default -> red",
        ],
    ),
    (
        "an extension that is switched off",
        BASE,
        [extension("mock", enabled=False), *BASE[1:]],
        ["default changes: step select_provider: provider mock: served -> mock is disabled"],
    ),
    (
        "what is suspended keeps what it was",
        BASE,
        [*BASE[:3], policy("default", "other", suspend=True)],
        [],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "lines"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_changes_for_requests(before: list[Document], after: list[Document], lines: list[str]) -> None:
    found = between(before, after)
    told = [
        line for line in said(found) if not any(word in line for word in (".config", ".subject", ".circuit"))
    ]
    assert told == lines


def test_the_same_objects_in_another_order_change_nothing() -> None:
    assert not between(BASE, list(reversed(BASE)))


def test_defaults_written_out_change_nothing() -> None:
    assert not between(BASE, [extension("mock", timeoutMs=5000, retry=1, enabled=True), *BASE[1:]])


def test_a_new_object_never_wins_against_an_older_one() -> None:
    late = policy("another")
    late["metadata"].pop("creationTimestamp")
    found = between(BASE, [*BASE, late])
    assert not found.requests
    assert any("Overridden" in sentence for _, sentence in found.new)


@pytest.mark.parametrize(
    ("added", "words"),
    [
        (extension("rival", subject="beamline.provider.mock.v1"), "belongs to Extension default/mock"),
        (policy("lost", "nobody"), "there is no Extension nobody"),
        (policy("zero", match={"percent": 0}), "MatchesNothing"),
        (policy("wrong", "guard"), "is of type validator"),
    ],
    ids=["a subject taken twice", "a reference to nobody", "a match of nothing", "a step of the wrong type"],
)
def test_what_nobody_may_expect_is_said_when_it_comes_and_when_it_goes(added: Document, words: str) -> None:
    found = between(BASE, [*BASE, added])
    assert any(words in sentence for _, sentence in found.new), found.new
    found = between([*BASE, added], BASE)
    assert any(words in sentence for _, sentence in found.gone), found.gone


def test_patterns_that_meet_are_looked_at_together() -> None:
    narrow = policy("mini", match={"models": ["*-mini"]}, priority=1)
    wide = policy("gpt", match={"models": ["gpt-*"]}, priority=2)
    found = between([*BASE, narrow, wide], [*BASE, narrow, {**wide, "spec": {**wide["spec"], "priority": 0}}])
    assert [(row.model, fate_text(row.before), fate_text(row.after)) for row in found.requests] == [
        ("*-mini and gpt-*", "gpt", "mini")
    ]


def test_more_combinations_than_can_be_asked_are_told_and_the_changed_ones_are_looked_at() -> None:
    many = [
        policy(f"p{number}", match={"tenants": [f"t{number}"], "models": [f"m{number}"]})
        for number in range(60)
    ]
    found = between([*BASE, *many], [*BASE, *many[1:]])
    assert not found.whole
    assert [(row.tenant, row.model, fate_text(row.after)) for row in found.requests] == [
        ("t0", "m0", "default")
    ]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "all.yaml").write_text(yaml.safe_dump_all(BASE))
    return tmp_path / "old", tmp_path / "new"


def run(folders: tuple[Path, Path], *options: str) -> int:
    return main(["diff", str(folders[1]), "--against", str(folders[0]), *options])


def test_exit_code_0_is_no_change_1_a_change_and_more_an_error(
    folders: tuple[Path, Path], capsys: Captured
) -> None:
    old, new = folders
    assert run(folders) == 0
    assert capsys.readouterr().out == "Nothing changes.\n"
    (new / "all.yaml").write_text(yaml.safe_dump_all([extension("mock", timeoutMs=7), *BASE[1:]]))
    assert run(folders) == 1
    assert "provider mock.timeout_ms: 5000 -> 7" in capsys.readouterr().out
    (new / "all.yaml").write_text(yaml.safe_dump_all([extension("mock", timeoutMs="soon"), *BASE[1:]]))
    assert run(folders) == 78
    assert "spec.timeoutMs" in capsys.readouterr().err
    (new / "all.yaml").write_text(yaml.safe_dump_all([extension("mock", "pre"), *BASE[1:]]))
    assert run(folders) == 78, "the type of an Extension can't be changed"
    assert "spec.type" in capsys.readouterr().err
    assert main(["diff", str(new), "--against", str(old / "none")]) == 2
    assert main(["diff", str(new), "--kubeconfig", str(old / "none")]) == 78


def test_a_fault_of_this_program_is_above_1_too(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("beamline_cli.routing.compare.compare", broken)
    assert run(folders) == 70
    assert "RuntimeError: odd" in capsys.readouterr().err


def test_the_same_as_a_document(folders: tuple[Path, Path], capsys: Captured) -> None:
    _, new = folders
    (new / "all.yaml").write_text(yaml.safe_dump_all(BASE[:3]))
    assert run(folders, "-o", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["changes"], found["routing_changes"]) == (True, True)
    assert found["objects"] == [
        {
            "kind": "RoutingPolicy",
            "namespace": "default",
            "name": "default",
            "change": "removed",
            "fields": [],
        }
    ]
    assert found["requests"][0]["after"] == "NOT_FOUND"
    assert run(folders, "-o", "name") == 1
    assert capsys.readouterr().out == "routingpolicy.beamline.io/default\n"


def test_the_examples_can_be_compared(capsys: Captured) -> None:
    folder = str(ROOT / "examples" / "policies")
    assert main(["diff", folder, "--against", folder]) == 0
    assert "Nothing changes." in capsys.readouterr().out
