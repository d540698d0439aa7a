"""``explain`` names the policy that takes the requests of another, and the object that holds its id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamline_cli.main import main


def document(kind: str, name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "beamline.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def policy(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    steps = [{"action": "select_provider", "providers": [{"extensionRef": {"name": "gpt"}}]}]
    return document("RoutingPolicy", name, namespace, steps=steps, **spec)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    objects = [
        document("Extension", "gpt", type="provider"),
        policy("wide", priority=5),
        policy("small", match={"models": ["gpt-4"]}),
        policy("nothing", match={"percent": 0}),
        policy("wide", "other", priority=9),
    ]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    return tmp_path


def test_the_table_says_who_overrides_whom_and_what_is_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "hi", "--model", "gpt-4", "--policies", str(folder)]) == 0
    out, err = capsys.readouterr()
    (small,) = (line for line in out.splitlines() if line.startswith("small"))
    assert "it matches, but ranks lower; Overridden: " in small
    assert "taken by wide" in small
    (nothing,) = (line for line in out.splitlines() if line.startswith("nothing"))
    assert "MatchesNothing: match.percent is 0" in nothing
    assert "RoutingPolicy other/wide: Conflicted: the id wide belongs to RoutingPolicy default/wide" in err
    assert out.startswith("policy wide: ")


def test_programs_read_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "hi", "--model", "gpt-4", "--policy", "small", "--policies", str(folder)]
    assert main([*command, "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (remark,) = answer["policy"]["remarks"]
    assert (remark["reason"], remark["other"]) == ("Overridden", "wide")
    others = {one["policy"]: one["remarks"] for one in answer["others"]}
    assert [found["reason"] for found in others["nothing"]] == ["MatchesNothing"]
    assert others["wide"] == []
    (lost,) = answer["conflicted"]
    assert (lost["object"], lost["other"]) == ("RoutingPolicy other/wide", "RoutingPolicy default/wide")
    assert main(command) == 0
    assert "remark: Overridden: " in capsys.readouterr().out


def test_a_header_that_holds_a_key_is_matched_here_no_more_than_at_a_door(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [
        document("Extension", "gpt", type="provider"),
        policy("by-key", match={"headers": {"x-api-key": "blm_1"}}),
        policy("base"),
    ]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    assert main(["explain", "hi", "--header", "X-Api-Key: blm_1", "--policies", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("policy base: ")
    assert "by_key: MatchesNothing: match.headers.x-api-key can never match" in err


@pytest.mark.parametrize("allowed", [True, False], ids=["lets it", "does not let it"])
def test_an_extension_of_another_namespace_is_there_only_where_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], allowed: bool
) -> None:
    grant = {"allowedNamespaces": ["default"]} if allowed else {}
    step = {
        "action": "select_provider",
        "providers": [{"extensionRef": {"name": "gpt", "namespace": "shared"}}],
    }
    objects = [
        document("Extension", "gpt", "shared", type="provider", **grant),
        document("RoutingPolicy", "p", steps=[step]),
    ]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    assert main(["explain", "hi", "--policies", str(tmp_path), "-o", "json"]) == 0
    [chosen] = json.loads(capsys.readouterr().out)["steps"][0]["providers"]
    assert ("absent" in chosen) is not allowed
    if not allowed:
        assert chosen["absent"] == "gpt does not let this policy use it"
