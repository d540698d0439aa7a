"""The command line: help that lists everything, exit codes, one sentence where something is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from beamline_cli.main import main
from beamline_contract import __version__
from beamline_contract.crd import crd_yaml

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART = str(ROOT / "examples" / "quickstart")
COMMANDS = frozenset(
    (
        "up status get logs diff suspend resume check doctor invoke keys isolate reset trace validate "
        + "explain top crds migrate audit new conformance operator router admin extension"
    ).split()
)

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        "KUBECONFIG",
        "BEAMLINE_STATE",
        "BEAMLINE_ROUTER_URL",
        "BEAMLINE_DATABASE_URL",
        "BEAMLINE_DEBUG",
    ):
        monkeypatch.delenv(name, raising=False)


def test_help_lists_every_command_and_the_exit_codes(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    listed = said.partition("Commands:")[2].partition("Exit codes:")[0]
    assert {line.split()[0] for line in listed.splitlines() if re.match(r"  \S", line)} >= COMMANDS
    assert "Exit codes: 0 done, 1 failed or refused, 2 wrong usage" in " ".join(said.split())


@pytest.mark.parametrize("command", sorted(COMMANDS | {"extension run", "extension list"}))
def test_every_command_has_a_help_text(command: str, capsys: Captured) -> None:
    assert main([*command.split(), "--help"]) == 0
    usage, _, text = capsys.readouterr().out.partition("\n\n")
    assert usage.strip().startswith(f"Usage: beamline {command}")
    assert len(text.split()) > 5


def test_version_is_that_of_the_distribution(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"beamline {__version__}\n"


def test_help_needs_none_of_the_components() -> None:
    code = (
        "import sys; from beamline_cli.main import main; main(['--help']); "
        "heavy = {'pydantic', 'asyncpg', 'nats', 'kubernetes', 'rich', 'uvicorn', 'asyncio'} "
        "& set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        pytest.param({}, "BEAMLINE_DATABASE_URL: Field required", id="one that is missing"),
        pytest.param({"METRICS_PORT": "x"}, "METRICS_PORT: Input should be", id="one with a name of its own"),
        pytest.param(
            {"BEAMLINE_DATABASE_URL": "postgresql://x", "BEAMLINE_LEASE_DURATION_S": "1"},
            "environment: BEAMLINE_LEASE_DURATION_S (1) must be greater",
            id="some that do not fit together",
        ),
    ],
)
def test_a_wrong_setting_is_named_by_its_variable(environ: dict[str, str], says: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BEAMLINE_")}
    command = [sys.executable, "-m", "beamline_cli", "operator"]
    done = subprocess.run(command, capture_output=True, text=True, env=inherited | environ, check=False)
    assert done.returncode == 78
    assert says in done.stderr


def test_completion_scripts_can_be_shown() -> None:
    command = [sys.executable, "-m", "beamline_cli"]
    environ = {"_BEAMLINE_COMPLETE": "source_bash", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert "complete" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        pytest.param(["nope"], 2, "No such command 'nope'", id="an unknown command"),
        pytest.param(
            ["get", "pods"], 2, "there is no kind 'pods': it is ext, rp or all", id="an unknown kind"
        ),
        pytest.param(["get"], 69, "nothing runs here: start `beamline up DIR`", id="nothing runs"),
        pytest.param(["logs", "router"], 69, "nothing runs here", id="nobody's logs"),
        pytest.param(["suspend", "ext", "x"], 69, "nothing runs here", id="nothing to suspend"),
        pytest.param(["suspend", "x"], 2, "which one? give KIND NAME", id="suspend without a name"),
        pytest.param(["resume", "pod/x"], 2, "there is no kind 'pod'", id="an unknown kind to resume"),
        pytest.param(["diff", QUICKSTART], 69, "nothing runs here", id="nothing to compare with"),
        pytest.param(
            ["diff", QUICKSTART, "--against", QUICKSTART, "--state", "x"],
            2,
            "--against excludes",
            id="two sides to compare with",
        ),
        pytest.param(["check"], 69, "nothing runs here", id="nothing to look at"),
        pytest.param(
            ["check", "--release-finalizers"], 2, "which cluster?", id="finalizers of which cluster"
        ),
        pytest.param(["status"], 69, "nothing runs here", id="nothing runs to show"),
        pytest.param(
            ["status", "--state", "/nowhere"], 69, "runs with the state /nowhere", id="nothing runs there"
        ),
        pytest.param(
            ["get", "--kubeconfig", "/nowhere"], 78, "/nowhere is no usable kubeconfig", id="no kubeconfig"
        ),
        pytest.param(["invoke", "hi"], 69, "nothing runs here", id="nobody to ask"),
        pytest.param(
            ["invoke", "hi", "--url", "http://127.0.0.1:1"], 69, "does not answer", id="nobody listens"
        ),
        pytest.param(
            ["invoke", "hi", "--url", "ftp://x"],
            2,
            "is not the address of a router",
            id="no router's address",
        ),
        pytest.param(["validate", "/nowhere"], 2, "/nowhere does not exist", id="nothing to validate"),
        pytest.param(
            ["crds", "--check", "/nowhere"], 1, "stale in /nowhere: extension.yaml", id="stale CRDs"
        ),
        pytest.param(["migrate"], 2, "Missing option '--database-url'", id="no database named"),
        pytest.param(
            ["migrate", "--database-url", "postgresql://u@127.0.0.1:1/x"],
            69,
            "can't be reached",
            id="a database that is away",
        ),
        pytest.param(
            ["extension", "run", "nope"], 2, "no extension is called 'nope'", id="an unknown extension"
        ),
        pytest.param(["up", "/nowhere"], 2, "/nowhere does not exist", id="up without a folder"),
        pytest.param(["up", __file__], 2, "is a file: give the folder", id="up with a file"),
        pytest.param(
            ["up", QUICKSTART, "--ephemeral", "--state", "x"],
            2,
            "exclude each other",
            id="up that contradicts itself",
        ),
        pytest.param(
            ["up", QUICKSTART, "--port", "x"], 2, "Invalid value for '--port'", id="a port that is no number"
        ),
        pytest.param(
            ["explain", "{", "--policies", QUICKSTART], 2, "is not valid JSON", id="a request that is no JSON"
        ),
        pytest.param(
            ["explain", "x", "--policies", QUICKSTART, "--policy", "no"],
            1,
            "no policy takes this request",
            id="no route",
        ),
        pytest.param(
            ["explain", '{"prompt": 5}', "--policies", QUICKSTART],
            1,
            "INVALID_ARGUMENT",
            id="a request that is refused",
        ),
        pytest.param(
            ["explain", "x", "--header", "no", "--policies", QUICKSTART],
            2,
            "is not NAME:VALUE",
            id="no header",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_with_an_exit_code(
    arguments: list[str], code: int, sentence: str, capsys: Captured
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert sentence in " ".join(captured.err.split())
    assert "Traceback" not in captured.err


def test_debugging_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("BEAMLINE_DEBUG", "1")
    assert main(["validate", "/nowhere"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_up_says_that_there_is_nothing_to_run(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "notes.txt").touch()
    assert main(["up", str(tmp_path)]) == 78
    assert "holds no manifests" in capsys.readouterr().err


def test_up_says_that_its_state_can_not_be_written(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").touch()
    assert main(["up", QUICKSTART, "--port", "0", "--state", str(tmp_path / "file" / "state")]) == 78
    said = capsys.readouterr().err
    assert "can't be written" in said
    assert said.count("\n") == 1


def test_valid_manifests_are_counted(capsys: Captured) -> None:
    assert main(["validate", QUICKSTART]) == 0
    assert capsys.readouterr().out == "5 objects in 2 files: all valid.\n"


def test_faults_are_lines_of_file_line_field_message(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "apiVersion: beamline.io/v1alpha1\nkind: Extension\nmetadata: {name: a}\n"
        "spec: {type: pre, retry: 9}\n"
    )
    assert main(["validate", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{path}:4: spec.retry: ")
    assert captured.err == "beamline: 1 fault in 1 file\n"
    assert main(["validate", str(path), "-o", "json"]) == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert (fault["line"], fault["field"]) == (4, "spec.retry")


GUARDED = """
apiVersion: beamline.io/v1alpha1
kind: RoutingPolicy
metadata: {name: guarded}
spec:
  steps:
    - action: extension_validator
      extensionRef: {name: guard}
      config: STEP
    - {action: select_provider, providers: [{extensionRef: {name: elsewhere}}]}
---
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {name: guard}
spec:
  type: validator
  config: {patterns: [email]}
"""
BUILT_IN = "  workload: {image: any, command: [beamline, extension, run, pii_guard]}\n"
OWN_SCHEMA = "  configSchema: {properties: {block_on_match: {type: boolean}}}\n"


@pytest.mark.parametrize(
    ("step", "more", "field"),
    [
        pytest.param(
            "{patterns: [shoe_size]}", BUILT_IN, "config.patterns.0", id="of an extension that ships"
        ),
        pytest.param("{pattern: [ssn]}", BUILT_IN, "config.pattern", id="a misspelled name"),
        pytest.param("{block_on_match: 7}", OWN_SCHEMA, "config.block_on_match", id="by spec.configSchema"),
        pytest.param("{patterns: [ssn]}", BUILT_IN, None, id="a step that fits"),
        pytest.param("{anything: 1}", "", None, id="an extension of which nothing is known"),
    ],
)
def test_the_config_of_a_step_is_held_against_its_extensions_schema(
    step: str, more: str, field: str | None, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(GUARDED.replace("STEP", step) + more)
    assert main(["validate", str(path)]) == (0 if field is None else 1)
    said = capsys.readouterr().out
    if field is not None:
        assert said.startswith(f"{path}:9: spec.steps[0].{field}: ")
        assert "laid over the config of Extension default/guard" in said


def test_the_same_object_twice_and_foreign_documents_are_told(tmp_path: Path, capsys: Captured) -> None:
    text = "apiVersion: beamline.io/v1alpha1\nkind: Extension\nmetadata: {name: a}\nspec: {type: pre}\n"
    (tmp_path / "a.yaml").write_text(text + "---\n" + text + "---\napiVersion: v1\nkind: Secret\n")
    assert main(["validate", str(tmp_path), "-o", "name"]) == 1
    captured = capsys.readouterr()
    assert "a.yaml:8: metadata.name: Extension default/a is defined twice" in captured.out
    assert "Secret is not of Beamline: skipped" in captured.err
    assert "Extension default/a" in captured.out.splitlines()


def test_a_folder_without_our_objects_is_a_wrong_configuration(tmp_path: Path) -> None:
    assert main(["validate", str(tmp_path)]) == 78


def test_crds_are_printed_written_and_checked(tmp_path: Path, capsys: Captured) -> None:
    assert main(["crds"]) == 0
    printed = [document["spec"]["names"]["kind"] for document in yaml.safe_load_all(capsys.readouterr().out)]
    assert printed == ["Extension", "RoutingPolicy"]
    assert main(["crds", "--write", str(tmp_path / "crds")]) == 0
    assert main(["crds", "--check", str(tmp_path / "crds")]) == 0
    assert (tmp_path / "crds" / "extension.yaml").read_text() == crd_yaml("Extension")


def test_the_extensions_that_ship_are_listed(capsys: Captured) -> None:
    assert main(["extension", "list"]) == 0
    assert {"mock_provider", "normalize_text", "pii_guard", "mask_sensitive_data"} <= set(
        capsys.readouterr().out.split()
    )
    assert main(["extension", "list", "-o", "json"]) == 0
    assert "mock_provider" in json.loads(capsys.readouterr().out)


SIDE_BY_SIDE = """
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {name: gpt}
spec: {type: provider, version: v1, weight: 100, stickyKey: tenant}
---
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {name: gpt-next}
spec: {type: provider, versionOf: gpt, version: v2, weight: 0}
---
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {name: newcomer}
spec: {type: provider}
---
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {name: guard}
spec: {type: validator}
---
apiVersion: beamline.io/v1alpha1
kind: RoutingPolicy
metadata: {name: default}
spec:
  steps:
    - {action: extension_validator, extensionRef: {name: guard}, overlap: true, timeoutMs: 70}
    - action: select_provider
      providers: [{extensionRef: {name: gpt}}]
      canary: {extensionRef: {name: newcomer}, percent: 100, stickyKey: tenant}
"""


def test_explain_shows_versions_canary_overlap_and_who_set_what(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "all.yaml").write_text(SIDE_BY_SIDE)
    assert main(["explain", "hi", "--tenant", "acme", "--policies", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "beside the provider" in out
    assert "step (timeout_ms)" in out
    assert "canary, 100 %: asked first for acme" in out
    assert "version v1, 100%, met by this request" in out
    assert "version v2, 0%" in out


def test_explain_names_policy_steps_and_provider(capsys: Captured) -> None:
    assert main(["explain", "hello", "--policies", QUICKSTART]) == 0
    said = capsys.readouterr().out
    assert said.startswith("policy default: ")
    order = [
        said.index(name) for name in ("normalize_text", "pii_guard", "mock_provider", "mask_sensitive_data")
    ]
    assert order == sorted(order)
    assert (
        main(["explain", '{"prompt": "hi"}', "--policies", QUICKSTART, "-o", "json", "--tenant", "acme"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["policy"]["id"] == "default"
    assert main(["explain", "--policies", QUICKSTART, "-o", "name", "--header", "x-team: red"]) == 0
    assert capsys.readouterr().out == "default\n"
