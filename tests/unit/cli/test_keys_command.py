"""``beamline keys``: a key is shown once, its entry is what a router takes."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from beamline_cli.main import main
from beamline_router.core.api_keys import ApiKey, read_keys, ring_of

Captured = pytest.CaptureFixture[str]


def test_the_entry_that_is_printed_lets_the_key_in(capsys: Captured) -> None:
    assert main(["keys", "new", "--tenant", "acme", "--environment", "prod", "-o", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    found = ring_of(read_keys({"keys": [made["entry"]]}, "keys.yaml")).check(made["key"], 0.0)
    assert isinstance(found, ApiKey)
    assert (found.tenant, found.environment) == ("acme", "prod")


def test_for_people_the_key_comes_first_and_the_entry_as_yaml_after_it(capsys: Captured) -> None:
    assert main(["keys", "new", "--tenant", "acme", "--expires", "90d", "--description", "Ann's"]) == 0
    key, _, rest = capsys.readouterr().out.partition("\n")
    (entry,) = yaml.safe_load(rest)["keys"]
    assert key.startswith(f"blm_{entry['id']}_")
    assert entry["description"] == "Ann's"
    assert key.split("_")[2] not in rest


def test_two_keys_are_never_the_same(capsys: Captured) -> None:
    for _ in range(2):
        main(["keys", "new", "--tenant", "acme", "-o", "name"])
    first, second = capsys.readouterr().out.split()
    assert first != second


def test_entries_are_appended_to_a_file_that_only_its_owner_reads(capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    for tenant in ("acme", "other"):
        assert main(["keys", "new", "--tenant", tenant, "--append", str(path), "-o", "name"]) == 0
    made = capsys.readouterr().out.split()
    ring = ring_of(read_keys(yaml.safe_load(path.read_text()), "keys.yaml"))
    assert [getattr(ring.check(key, 0.0), "tenant", None) for key in made] == ["acme", "other"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["keys", "check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "acme" in shown
    assert "sha256" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--tenant", "a b"], "tenant must be 1 to 128", id="a blank in the tenant"),
        pytest.param(["--tenant", "a", "--environment", "a/b"], "environment must be", id="a slash"),
        pytest.param(["--tenant", "a", "--expires", "soon"], "expires must be a time", id="soon"),
    ],
)
def test_what_no_entry_may_have_is_wrong_usage(capsys: Captured, arguments: list[str], words: str) -> None:
    assert main(["keys", "new", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_faulty_file_is_named_and_left_as_it_is(capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("keys: [{id: x}]")
    assert main(["keys", "check", str(path)]) == 78
    assert "keys[0].id must be" in capsys.readouterr().err
    assert main(["keys", "new", "--tenant", "acme", "--append", str(path)]) == 78
    assert path.read_text() == "keys: [{id: x}]"


def test_an_expired_entry_is_listed_as_such(capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    main(["keys", "new", "--tenant", "acme", "--expires", "2020-01-01T00:00:00Z", "--append", str(path)])
    capsys.readouterr()
    main(["keys", "check", str(path)])
    assert "2020-01-01T00:00:00Z (expired)" in capsys.readouterr().out
