"""The end-to-end suite never runs by accident, and is called the same way everywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .rendering import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import build_image

CLEAN = {name: value for name, value in os.environ.items() if name not in {"KUBECONFIG", "CASE"}}
CLEAN.pop("BEAMLINE_E2E_KUBECONFIG", None)
PYTEST = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, env={**CLEAN, **environment}
    )


def test_named_by_hand_without_a_cluster_it_says_what_is_missing() -> None:
    done = _run(*PYTEST, "tests/e2e")
    assert done.returncode == 4
    assert "make e2e KUBECONFIG=path" in done.stderr


def test_the_cluster_that_a_person_is_logged_in_to_is_not_taken(tmp_path: Path) -> None:
    mine = tmp_path / "kubeconfig"
    mine.write_text("{}")
    done = _run(*PYTEST, "tests/e2e", "tests/unit/test_rules_page.py", KUBECONFIG=str(mine))
    assert done.returncode == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "make e2e KUBECONFIG=path"),
        ({"KUBECONFIG": "/no/such/file"}, "KUBECONFIG=/no/such/file is no file"),
    ],
    ids=["no cluster is named", "the name is no file"],
)
def test_make_e2e_asks_for_a_cluster(given: dict[str, str], said: str) -> None:
    done = _run(sys.executable, "scripts/run_e2e.py", **given)
    assert done.returncode == 78
    assert said in done.stderr


def test_everybody_calls_the_same_targets() -> None:
    called = "make e2e-kind"
    assert called in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert called in (ROOT / ".gitlab-ci.yml").read_text()
    run = (ROOT / ".ci" / "run").read_text()
    assert run.index("make test") < run.index("make e2e-local")
    assert not re.search(r"^\s*exit$", run, re.MULTILINE)  # nothing ends it before


@pytest.mark.parametrize("script", ["scripts/e2e_kind.sh", "scripts/e2e_local.sh", ".ci/run"])
def test_the_scripts_are_shell(script: str) -> None:
    shell = (ROOT / script).read_text().splitlines()[0].rsplit("/", 1)[-1].split()[-1]
    assert _run(shell, "-n", script).returncode == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("602 MB", 602_000_000), ("18.9 MB", 18_900_000), ("766 KB", 766_000), ("1.2 GB", 1.2e9)],
)
def test_sizes_are_read_as_buildah_prints_them(text: str, size: int) -> None:
    assert build_image.readable(text) == size


def test_the_base_is_what_the_last_stage_stands_on() -> None:
    assert build_image.base_image() == "docker.io/library/python:3.13-slim"
