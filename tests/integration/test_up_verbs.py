"""``beamline check``, ``logs``, ``diff``, ``suspend`` and ``resume`` on a running ``beamline up``."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness.laptop import Up


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    place = Path(tempfile.mkdtemp(prefix="beamline-test-up-"))
    running = Up(place)
    try:
        yield running.ready()
    finally:
        running.stop()
        shutil.rmtree(place, ignore_errors=True)


def test_a_world_that_is_well_passes_every_check_that_makes_sense_here(up: Up) -> None:
    done = up.cli("check", "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["check"]: one for one in json.loads(done.stdout)}
    assert {name for name, one in found.items() if one["verdict"] not in {"ok", "skipped"}} == set()
    looked_at = {name for name, one in found.items() if one["verdict"] == "ok"}
    assert len(looked_at) >= 20
    assert {
        "database",
        "schema",
        "audit-chain",
        "nats",
        "routers",
        "breakers",
        "extensions-ready",
    } <= looked_at
    assert found["crds-present"]["message"] == "no cluster is named"


def test_an_isolated_extension_is_a_warning_until_it_is_reset(up: Up) -> None:
    assert up.cli("isolate", "pii-guard").returncode == 0
    try:
        found = {one["check"]: one for one in json.loads(up.cli("check", "-o", "json").stdout)}
        assert found["breakers"]["verdict"] == "warning"
        assert "pii_guard (isolated)" in found["breakers"]["message"]
    finally:
        assert up.cli("reset", "pii-guard").returncode == 0


def test_logs_of_a_component_an_extension_and_a_server(up: Up) -> None:
    router = up.cli("logs", "router")
    assert '"event":"router.ready"' in router.stdout
    assert len(up.cli("logs", "router", "--tail", "2").stdout.splitlines()) == 2
    extension = up.cli("logs", "pii-guard")
    assert '"extension_id":"pii_guard"' in extension.stdout
    assert "normalize_text" not in extension.stdout
    assert "nats-server" in up.cli("logs", "nats").stdout
    assert "PostgreSQL" in up.cli("logs", "postgresql").stdout
    assert up.cli("logs", "router", "--since", "0s").stdout == ""
    assert up.cli("logs", "router", "--since", "1h").stdout == router.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nobody"], 1, "nothing runs for an Extension 'nobody'"),
        (["ext/router"], 1, "nothing runs for an Extension 'router'"),
        (["operator"], 1, "is that process itself"),
        (["router", "--since", "soon"], 2, "it looks like 90s, 10m"),
        (["router", "-c", "x"], 2, "for pods of a cluster"),
    ],
    ids=["nobody", "no extension of a component's name", "the operator", "no span", "a container"],
)
def test_logs_that_are_not_there_are_one_sentence(
    up: Up, arguments: list[str], code: int, words: str
) -> None:
    done = up.cli("logs", *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_what_comes_is_followed_until_it_is_stopped(up: Up, tmp_path: Path) -> None:
    output = tmp_path / "followed.txt"
    with output.open("w") as file:
        follower = subprocess.Popen(
            [sys.executable, "-m", "beamline_cli", "logs", "mock-provider", "-f", "--tail", "0"],
            stdout=file,
            stderr=file,
            env=up.environ,
        )
    log = up.state / "logs" / "default.mock-provider.0.log"
    try:
        give_up = time.monotonic() + 30
        number = 0
        while "marked" not in output.read_text() and time.monotonic() < give_up:
            number += 1
            with log.open("ab") as file:
                file.write(f"marked {number}\n".encode())
            time.sleep(0.2)
        log.replace(log.with_name(log.name + ".1"))
        log.write_bytes(b"after it was begun afresh\n")
        while "afresh" not in output.read_text() and time.monotonic() < give_up:
            time.sleep(0.1)
    finally:
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130
    lines = output.read_text().splitlines()
    assert lines[-1] == "after it was begun afresh"
    assert len(lines) == len(set(lines)), "no line twice"


def test_a_folder_is_compared_with_what_runs(up: Up, tmp_path: Path) -> None:
    other = tmp_path / "manifests"
    shutil.copytree(up.folder, other)
    assert up.cli("diff", str(other)).returncode == 0
    (other / "policy.yaml").unlink()
    done = up.cli("diff", str(other))
    assert done.returncode == 1, done.stderr
    assert "every request: default -> NOT_FOUND" in done.stdout


def test_a_suspended_object_takes_in_no_change_until_it_is_resumed(up: Up) -> None:
    before = yaml.safe_load((up.folder / "policy.yaml").read_text())
    at = len(up.said)
    assert up.cli("suspend", "rp", "default").stdout == "suspended RoutingPolicy default/default\n"
    assert "suspend: true" in (up.folder / "policy.yaml").read_text()
    up.until_said(r"applied\s+RoutingPolicy default/default", after=at)
    assert "is suspended already" in up.cli("suspend", "rp/default").stdout
    assert "suspended" in up.cli("check").stdout
    at = len(up.said)
    assert up.cli("resume", "rp", "default").returncode == 0
    assert yaml.safe_load((up.folder / "policy.yaml").read_text()) == before
    up.until_said(r"programmed\s+RoutingPolicy default/default", after=at)
