"""The declared rights: nothing with a star, nothing that could grant itself more, no data of Secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from beamline_operator.edges.preflight import NEEDED
from beamline_operator.rbac import INPUTS, RIGHTS, lease_rules, main, rules

ROOT = Path(__file__).resolve().parents[3]


def test_no_star_no_escalation_and_no_secrets_unless_asked_for() -> None:
    words = {word for rule in rules() for part in rule.values() for word in part}
    assert not words & {"*", "escalate", "bind", "impersonate", "secrets", "configmaps"}
    assert {verb for right in INPUTS for verb in right.verbs} == {"list", "watch"}


def test_the_preflight_asks_for_every_declared_right() -> None:
    asked = {
        (group, f"{name}/{sub}".rstrip("/"), verb) for group, name, sub, verbs in NEEDED for verb in verbs
    }
    declared = {(r.group, name, verb) for r in RIGHTS for name in r.resources for verb in r.verbs}
    assert asked == declared


def test_the_table_in_the_documentation_holds_the_same() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    table = page.split("## What the operator may do\n", 1)[1].split("\n## ", 1)[0]
    found = set()
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0] not in {"API group", "---"}:
            group = "" if cells[0] == "core" else cells[0].strip("`")
            names, verbs = (tuple(re.findall(r"`([^`]+)`", cell)) for cell in cells[1:3])
            found.add((group, names, verbs, cells[3]))
    assert found == {(right.group, right.resources, right.verbs, right.why) for right in RIGHTS}


def test_the_role_of_the_chart_holds_the_same() -> None:
    template = (ROOT / "charts" / "beamline" / "templates" / "rbac.yaml").read_text()
    block = template.split('{{- define "beamline.rules" -}}', 1)[1].split("{{- end -}}", 1)[0]
    listed = re.findall(r"apiGroups: \[(.*?)\]\n\s+resources: \[(.*?)\]\n\s+verbs: \[(.*?)\]", block)
    found = {(group.strip('"'), *(tuple(part.split(", ")) for part in rest)) for group, *rest in listed}
    assert found == {(right.group, right.resources, right.verbs) for right in RIGHTS}


def test_what_is_printed_for_who_has_no_helm_is_all_that_is_needed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main()
    assert yaml.safe_load(capsys.readouterr().out) == rules() + lease_rules("beamline-operator")
