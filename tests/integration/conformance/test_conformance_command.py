"""``beamline conformance`` as a person and a pipeline use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from harness.conformance_runs import HERE

SUBJECT = "beamline.provider.mine.v1"


def run(*arguments: str, path: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), **env}
    whole.pop("NATS_URL", None)
    if path is not None:
        whole["PATH"] = path
    command = [sys.executable, "-m", "beamline_cli", "conformance", *arguments]
    return subprocess.run(command, env=whole, capture_output=True, text=True, timeout=120, check=False)


def test_a_failure_is_a_cross_with_what_to_do_a_junit_failure_and_exit_code_1(tmp_path: Path) -> None:
    junit = tmp_path / "reports" / "junit.xml"
    script = HERE / "broken" / "trace.py"
    done = run(
        SUBJECT, "--command", f"{sys.executable} {script}", "--junit", str(junit), PYTHONIOENCODING="utf-8"
    )
    assert done.returncode == 1, done.stderr
    assert "✓ contract" in done.stdout
    assert "✗ trace" in done.stdout
    assert "what to do: Copy traceparent" in done.stdout
    assert done.stdout.splitlines()[-1] == "14 passed, 1 failed (trace)"
    cases = {case.get("name"): case.find("failure") for case in Xml.parse(junit).iter("testcase")}
    assert [name for name, failure in cases.items() if failure is not None] == ["trace"]


def test_an_image_is_run_by_docker_and_removed(tmp_path: Path) -> None:
    """With a docker that runs the image's command here: the real one passes the same words to a container."""
    calls = tmp_path / "calls"
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\n"
        f'echo "$1" >> {calls}\n'
        '[ "$1" = rm ] && exit 0\n'
        'while [ "$1" != acme/mine:1 ]; do [ "$1" = --env ] && export "$2"; shift; done\n'
        f"exec {sys.executable} {HERE / 'foreign.py'}\n"
    )
    docker.chmod(0o755)
    done = run(SUBJECT, "--image", "acme/mine:1", "--json", path=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["passed"] is True
    words = calls.read_text().split()
    assert words.count("run") == words.count("rm") >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        pytest.param(["a..b"], 2, "SUBJECT must be", id="a subject that is none"),
        pytest.param(["acme.own"], 2, "say it with --kind", id="a subject that tells no kind"),
        pytest.param([SUBJECT, "--config", "[1]"], 2, "--config must be", id="a list for a configuration"),
        pytest.param([SUBJECT, "--command", "no-such-program"], 69, "can't be started", id="no such program"),
        pytest.param([SUBJECT, "--command", "false"], 69, "exit code 1", id="a program that ends at once"),
        pytest.param(
            [SUBJECT, "--nats-url", "nats://127.0.0.1:9"], 69, "no NATS server answers", id="no server"
        ),
    ],
)
def test_what_cannot_be_checked_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: int, told: str
) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert told in done.stderr


def test_an_image_without_docker_or_podman_is_a_clear_sentence(tmp_path: Path) -> None:
    done = run(SUBJECT, "--image", "acme/mine:1", path=str(tmp_path))
    assert done.returncode == 69
    assert "neither is on PATH" in done.stderr
