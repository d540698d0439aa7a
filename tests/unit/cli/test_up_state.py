"""The state folder of ``beamline up``: one holder, found by others, with sentences for what is in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from beamline_cli.commands.look import condition
from beamline_cli.faults import CliError, ExitCode
from beamline_cli.main import main
from beamline_cli.up.plan import Plan, default_state, home, prepared
from beamline_cli.up.state import Lock, RunningUp, find_running, publish, read_objects, withdraw

QUICKSTART = Path(__file__).resolve().parents[3] / "examples" / "quickstart"


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("BEAMLINE_STATE", raising=False)


class Runs:
    """A pretended ``up``: holds the lock and says where things are."""

    def __init__(self, state: Path, folder: Path) -> None:
        state.mkdir(parents=True)
        self.state = state
        self.lock = Lock(state)
        self.lock.acquire(folder)
        publish(
            RunningUp(
                os.getpid(), str(folder), state, "http://127.0.0.1:1", "nats://n", "postgresql://p", "now"
            )
        )

    def end(self) -> None:
        withdraw(self.state)
        self.lock.release()


def test_a_held_lock_names_its_holder_and_a_released_one_leaves_no_file(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    lock.acquire(tmp_path)
    with pytest.raises(CliError, match=rf"already runs for {tmp_path} \(process {os.getpid()}\)") as refused:
        Lock(tmp_path).acquire(tmp_path)
    assert refused.value.code is ExitCode.UNAVAILABLE
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    Lock(tmp_path).acquire(tmp_path)


def test_a_lock_whose_holder_died_is_free(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("999999999\n")
    lock = Lock(tmp_path)
    lock.acquire(tmp_path)
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_the_only_run_is_found_without_being_named(tmp_path: Path) -> None:
    run = Runs(tmp_path / "one", tmp_path)
    assert find_running(None).state == find_running(tmp_path / "one").state == tmp_path / "one"
    run.end()
    with pytest.raises(CliError, match="nothing runs here"):
        find_running(None)


def test_of_several_runs_the_one_of_the_present_folder_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Runs(tmp_path / name, tmp_path / f"{name}-manifests") for name in ("one", "two")]
    with pytest.raises(CliError, match=r"several run: say which with --state: .*one.*two") as refused:
        find_running(None)
    assert refused.value.code is ExitCode.USAGE
    (tmp_path / "two-manifests").mkdir()
    monkeypatch.chdir(tmp_path / "two-manifests")
    assert find_running(None).state == tmp_path / "two"
    for run in runs:
        run.end()


def test_what_a_killed_run_left_behind_does_not_count(tmp_path: Path) -> None:
    run = Runs(tmp_path / "one", tmp_path)
    run.lock.release()
    with pytest.raises(CliError, match="nothing runs here"):
        find_running(None)


def test_get_prints_tables_names_and_json_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Runs(tmp_path / "one", tmp_path)
    (run.state / "objects").mkdir()
    ready = {"type": "Ready", "status": "False", "reason": "Invalid", "message": "spec.retry: too many"}
    item = {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "Extension",
        "metadata": {"name": "guard", "namespace": "team", "generation": 3},
        "spec": {"type": "pre"},
        "status": {"conditions": [ready], "programmed": "1/2", "replicas": 2, "readyReplicas": 1},
    }
    (run.state / "objects" / "Extension.team.guard.json").write_text(json.dumps(item))
    (run.state / "objects" / "half.json").write_text("{")
    assert read_objects(run.state) == [item]
    assert condition(item, "Accepted") == {}
    assert main(["get", "-o", "wide"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "EXTENSION",
        "TYPE",
        "READY",
        "REASON",
        "PROGRAMMED",
        "REPLICAS",
        "GENERATION",
        "MESSAGE",
    ]
    assert row.split()[:7] == ["team/guard", "pre", "False", "Invalid", "1/2", "1/2", "3"]
    assert main(["get", "ext", "guard", "-n", "team", "-o", "name"]) == 0
    assert capsys.readouterr().out == "extension.beamline.io/guard\n"
    assert main(["get", "rp"]) == 0
    assert capsys.readouterr().out == "No objects.\n"
    assert main(["get", "ext", "nobody"]) == 1
    assert main(["status", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["url"] == "http://127.0.0.1:1"
    assert main(["status"]) == 0
    assert "http://127.0.0.1:1" in capsys.readouterr().out
    run.end()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({"XDG_STATE_HOME": "/x"}, Path("/x/beamline"), id="where XDG_STATE_HOME says"),
        pytest.param(
            {"HOME": "/h"},
            Path("/var/lib/beamline") if os.geteuid() == 0 else Path("/h/.local/state/beamline"),
            id="else by convention, for root outside of its home",
        ),
    ],
)
def test_states_are_below_one_folder(environ: dict[str, str], expected: Path) -> None:
    assert home(environ) == expected


def test_every_manifest_folder_has_a_state_of_its_own() -> None:
    environ = {"XDG_STATE_HOME": "/x"}
    one, other = (default_state(Path(folder), environ) for folder in ("/a/manifests", "/b/manifests"))
    assert one != other
    assert one.name.startswith("manifests-")


def test_a_prepared_plan_knows_its_folders(tmp_path: Path) -> None:
    plan = prepared(Plan(QUICKSTART), {"XDG_STATE_HOME": str(tmp_path)})
    assert plan.folder == QUICKSTART
    assert plan.logs.is_dir()
    assert plan.state_folder.is_relative_to(tmp_path)
