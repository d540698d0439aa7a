"""``beamline up`` as a person uses it: started, used over HTTP, edited, stopped; with everything real."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.laptop import EDIT_S, ROOT, Up


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that a PostgreSQL of another user may reach: pytest closes its own to everybody else."""
    folder = Path(tempfile.mkdtemp(prefix="beamline-test-up-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def starts(place: Path) -> Iterator[Callable[..., Up]]:
    """Starts ``beamline up`` with options; whatever a failed test leaves is killed."""
    started: list[Up] = []

    def start(*options: str, folder: Path | None = None) -> Up:
        started.append(Up(place, *options, folder=folder))
        return started[-1]

    yield start
    for up in started:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()
    for up in started:
        assert up.left_behind() == []


def test_the_main_job_is_done_edited_and_stopped_without_a_trace(starts: Callable[..., Up]) -> None:
    up = starts().ready()
    print(re.findall(r"ready\s+in .* s;", up.said))

    status, answer = up.route("  Mail   ME at jane.doe@example.com ")
    assert status == 200
    assert answer["output"] == "Mock response to: mail me at [EMAIL] [provider=mock_provider]"
    steps = [(step["extension_id"], step["outcome"]) for step in answer["steps"]]
    chain = ["normalize_text", "pii_guard", "mock_provider", "mask_sensitive_data"]
    assert steps == [(name, "ok") for name in chain]

    calls = up.provider_calls()
    assert calls >= 1
    status, answer = up.route("my card is 4111 1111 1111 1111")
    assert (status, answer["error"]["code"]) == (422, "VALIDATION_REJECTED")
    assert up.provider_calls() == calls

    edited = up.edit("extensions.yaml", "lowercase: true", "lowercase: false")
    up.until_routed("STILL LOUD", lambda answer: "STILL LOUD" in answer["output"])
    programmed = up.until_said(
        r"programmed\s+Extension default/normalize-text, 1/1 routers in (\d+) ms", after=edited
    )
    print(f"edit to programmed: {programmed.group(1)} ms")

    edited = up.edit("extensions.yaml", "timeoutMs: 1000", "timeoutMs: soon")
    up.until_said(r"refused\s+extensions\.yaml:8: spec\.timeoutMs: .*'soon'", after=edited)
    up.until_said("the last good version keeps serving", after=edited)
    assert up.route("STILL LOUD")[0] == 200
    listed = json.loads(up.cli("status", "-o", "json").stdout)
    assert [(fault["file"], fault["line"], fault["field"]) for fault in listed["faults"]] == [
        ("extensions.yaml", 8, "spec.timeoutMs")
    ]
    edited = up.edit("extensions.yaml", "timeoutMs: soon", "timeoutMs: 1500")
    up.until_said(r"programmed\s+Extension default/mock-provider", after=edited)
    up.until_said("every file is valid again", after=edited)

    asked = up.cli("invoke", "Mail ME at jane.doe@example.com")
    assert (asked.returncode, asked.stdout.strip()) == (
        0,
        "Mock response to: Mail ME at [EMAIL] [provider=mock_provider]",
    )
    assert "VALIDATION_REJECTED" in up.cli("invoke", "4111 1111 1111 1111").stderr
    got = up.cli("get", "ext", "-o", "name")
    assert got.stdout.split() == [
        f"extension.beamline.io/{name}"
        for name in ("mask-sensitive-data", "mock-provider", "normalize-text", "pii-guard")
    ]

    assert up.stop() == 0
    assert "Traceback" not in up.said
    assert up.left_behind() == []
    assert not (up.state / "lock").exists()
    assert not (up.state / "run.json").exists()
    assert not list(up.state.rglob(".s.PGSQL*"))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(up.url.rsplit(":", 1)[1]))) != 0
    assert up.cli("get").returncode == 69


def test_a_second_start_keeps_what_was_there(starts: Callable[..., Up]) -> None:
    up = starts().ready()
    first = json.loads(up.cli("get", "-o", "json").stdout)["items"]
    up.edit("policy.yaml", "deadlineMs: 10000", "deadlineMs: 20000")
    up.until_said(r"programmed\s+RoutingPolicy default/default")
    assert up.stop(signal.SIGTERM) == 0

    again = starts().ready()
    second = json.loads(again.cli("get", "-o", "json").stdout)["items"]
    assert [item["metadata"]["uid"] for item in second] == [item["metadata"]["uid"] for item in first]
    assert [item["metadata"]["generation"] for item in second] == [1, 1, 1, 1, 2]
    database = json.loads(again.cli("status", "-o", "json").stdout)["run"]["database_url"]
    actions = audit_of(database, "default")
    assert actions == [("created", 1), ("updated", 2)]
    assert "schema up to date" in again.said


def audit_of(url: str, object_id: str) -> list[tuple[str, int]]:
    """Actions and generations in the audit log, oldest first."""
    import asyncio

    from beamline_registry.port import AuditQuery
    from beamline_registry.postgres import PostgresRegistry

    async def read() -> list[tuple[str, int]]:
        registry = await PostgresRegistry.connect(url)
        try:
            rows = await registry.audit(AuditQuery(object_id=object_id))
        finally:
            await registry.close()
        return [(row.action, row.generation) for row in reversed(rows)]

    return asyncio.run(read())


def test_a_deleted_document_takes_its_extension_with_it(starts: Callable[..., Up]) -> None:
    up = starts().ready()
    policy = (up.folder / "policy.yaml").read_text()
    (up.folder / "policy.yaml").write_text(
        policy.replace("    - {action: extension_post, extensionRef: {name: mask-sensitive-data}}\n", "")
    )
    text = (up.folder / "extensions.yaml").read_text()
    kept = [part for part in text.split("---\n") if "mask-sensitive-data" not in part]
    (up.folder / "extensions.yaml").write_text("---\n".join(kept))
    up.until_said(r"removed\s+Extension default/mask-sensitive-data")
    answer = up.until_routed("jane.doe@example.com", lambda answer: len(answer.get("steps", ())) == 3)
    assert "jane.doe@example.com" in answer["output"]
    give_up = time.monotonic() + EDIT_S
    while "mask-sensitive-data" in up.cli("get", "-o", "name").stdout and time.monotonic() < give_up:
        time.sleep(0.1)
    assert up.cli("get", "ext", "mask-sensitive-data").returncode == 1


def test_a_crashed_extension_is_reported_and_comes_back(starts: Callable[..., Up]) -> None:
    up = starts().ready()
    (line,) = [line for line in up.said.splitlines() if " beamline.ext.validate.pii_guard.v1 " in line]
    os.kill(int(line.split("beamline.ext.validate.pii_guard.v1")[1].split()[0]), signal.SIGKILL)
    up.until_said(r"crashed\s+pii-guard was ended by SIGKILL")
    up.until_said(r"restarted\s+pii-guard")
    up.until_routed("hello", lambda answer: "output" in answer)


@pytest.mark.parametrize("server", ["postgresql", "nats"])
def test_a_server_that_ends_is_started_again(starts: Callable[..., Up], server: str) -> None:
    up = starts().ready()
    (line,) = [line for line in up.said.splitlines() if re.match(rf"  {server} +ready", line)]
    (pid,) = re.findall(r"  (\d+)  ", line)
    os.kill(int(pid), signal.SIGQUIT if server == "postgresql" else signal.SIGKILL)
    up.until_said(rf"restarted\s+{server}")
    up.edit("policy.yaml", "deadlineMs: 10000", "deadlineMs: 20000")
    up.until_said(r"programmed\s+RoutingPolicy default/default")
    up.until_routed("hello", lambda answer: "output" in answer)


def test_nothing_survives_when_up_itself_is_killed_and_the_next_start_takes_over(
    starts: Callable[..., Up],
) -> None:
    up = starts().ready()
    up.process.kill()
    up.process.wait()
    assert up.left_behind() == []
    assert (up.state / "lock").exists()
    again = starts().ready()
    assert again.route("hello")[0] == 200


def test_a_second_ctrl_c_ends_everything_at_once(starts: Callable[..., Up]) -> None:
    up = starts().ready()
    frozen = [line for line in up.said.splitlines() if re.search(r"^\s+router\s+ready", line)]
    router = int(frozen[0].split()[3])
    os.kill(router, signal.SIGSTOP)
    up.process.send_signal(signal.SIGINT)
    up.until_said("stopping")
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(30) == 130
    assert up.left_behind() == []
    assert not (up.state / "lock").exists()


def test_ctrl_c_during_the_start_stops_what_was_started(starts: Callable[..., Up]) -> None:
    up = starts()
    up.until_said("core +reconciling", 60)
    assert up.stop() == 0
    assert up.left_behind() == []
    assert not (up.state / "lock").exists()


def test_ephemeral_keeps_nothing(starts: Callable[..., Up]) -> None:
    up = starts("--ephemeral").ready()
    state = Path(json.loads(up.cli("status", "-o", "json").stdout)["run"]["state"])
    assert state.exists()
    assert up.stop() == 0
    assert not state.exists()


def test_a_second_up_on_the_same_state_is_told_so(starts: Callable[..., Up]) -> None:
    up = starts().ready()
    second = up.cli("up", str(up.folder), "--port", "0", "--state", str(up.state))
    assert second.returncode == 69
    assert second.stderr.count("\n") == 1
    assert f"already runs for {up.folder} (process {up.process.pid})" in second.stderr
    assert up.route("hello")[0] == 200


def test_a_taken_port_is_one_sentence_and_nothing_is_started(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [
            "up",
            str(ROOT / "examples" / "quickstart"),
            "--port",
            str(port),
            "--state",
            str(place / "state"),
        ]
        environ = {**os.environ, "XDG_STATE_HOME": str(place)}
        done = subprocess.run(
            [sys.executable, "-m", "beamline_cli", *command],
            capture_output=True,
            text=True,
            env=environ,
            check=False,
        )
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == (
        f"beamline: port {port} is taken: stop what listens there, or choose another with --port "
        "(0 takes a free one)\n"
    )
    assert not (place / "state" / "lock").exists()
    assert not (place / "state" / "postgres").exists()


def test_what_can_not_run_here_is_shown_and_the_rest_serves(starts: Callable[..., Up], place: Path) -> None:
    folder = place / "manifests"
    shutil.copytree(ROOT / "examples" / "quickstart", folder)
    (folder / "foreign.yaml").write_text(
        "apiVersion: beamline.io/v1alpha1\nkind: Extension\nmetadata: {name: foreign}\n"
        "spec: {type: pre, workload: {image: example.com/foreign:1}}\n"
    )
    (folder / "broken.yml").write_text(
        "apiVersion: beamline.io/v1alpha1\nkind: Extension\nmetadata: {name: broken}\n"
    )
    (folder / "other.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n")
    up = starts(folder=folder).ready()
    assert re.search(r"foreign\s+WorkloadNotRunnable\s+.*set workload\.command", up.said)
    assert re.search(r"refused\s+broken\.yml:1: spec: is required", up.said)
    assert "other.yaml:1: ConfigMap of v1 is not of Beamline: skipped" in up.said
    assert up.route("hello")[0] == 200


def test_the_seeds_without_keys_name_the_missing_key_start_no_process_for_it_and_serve_the_rest(
    starts: Callable[..., Up], place: Path
) -> None:
    folder = place / "seeds"
    shutil.copytree(ROOT / "examples" / "seeds", folder)
    keyed = {"openai-gpt4": "OPENAI_API_KEY", "anthropic-claude": "ANTHROPIC_API_KEY"}
    for name in keyed:
        path = folder / f"{name.replace('-', '_')}.yaml"
        path.write_text(path.read_text().replace("enabled: false", "enabled: true"))
    kept = {key: value for key, value in os.environ.items() if key in keyed.values()}
    for key in kept:
        del os.environ[key]
    try:
        up = starts(folder=folder).ready()
    finally:
        os.environ.update(kept)
    conditions = {
        one["metadata"]["name"]: {c["type"]: c for c in one["status"]["conditions"]}
        for one in json.loads(up.cli("status", "-o", "json").stdout)["objects"]
    }
    ready = {name: found["Ready"]["reason"] for name, found in conditions.items()}
    others = ("mock-provider", "normalize-text", "pii-guard", "mask-sensitive-data")
    assert ready == dict.fromkeys(keyed, "CredentialsMissing") | dict.fromkeys(others, "Ready")
    for name, variable in keyed.items():
        assert f"{variable} is not set" in conditions[name]["Ready"]["message"]
        assert not list((up.state / "logs").glob(f"default.{name}.*")), "no process was started for it"
