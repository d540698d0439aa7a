"""``beamline new``: what it writes and refuses; and validate, which knows configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamline_cli.commands.check import checked
from beamline_cli.main import main
from beamline_cli.scaffold.render import LANGUAGES, Extension, render
from beamline_contract.names import EXTENSION_TYPES


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", EXTENSION_TYPES)
def test_every_language_and_kind_has_code_tests_image_manifest_and_readme(
    language: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tone-guard"
    assert main(["new", "tone-guard", "--kind", kind, "--language", language, "-o", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "beamline conformance beamline." in said
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert {"Dockerfile", "README.md", "manifest.yaml"} <= set(files)
    assert any("test" in name for name in files)
    assert not [name for name, text in files.items() if "{{" in text or "{%" in text]
    for name, text in files.items():
        if name.endswith(".py"):
            compile(text, name, "exec")
    faults, objects = checked([folder / "manifest.yaml"])
    assert not faults
    assert len(objects) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["Tone", "--kind", "pre"], "small letters", id="a name with capitals"),
        pytest.param(["../x", "--kind", "pre"], "small letters", id="a name that leads elsewhere"),
        pytest.param(["class", "--kind", "pre"], "already uses", id="a keyword of Python"),
        pytest.param(["tone", "--kind", "gadget"], "--kind must be one of", id="a kind that is none"),
        pytest.param(
            ["tone", "--kind", "pre", "--language", "cobol"], "--language must be", id="an unknown language"
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_that_are_there_are_overwritten_only_when_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "README.md"
    mine.write_text("mine")
    command = ["new", "tone-guard", "--kind", "pre", "-o", str(tmp_path)]
    assert main(command) == 1
    assert "README.md: --force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert main([*command, "--force"]) == 0
    assert mine.read_text() != "mine"


def test_the_same_question_gives_the_same_files() -> None:
    assert render(Extension("a", "pre", "go")) == render(Extension("a", "pre", "go"))


MANIFEST = """\
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {{name: guard}}
spec:
  type: pre
  config: {config}
  {more}
"""


@pytest.mark.parametrize(
    ("config", "more", "told"),
    [
        pytest.param(
            "{lowercase: perhaps}",
            "workload: {image: x, command: [beamline, extension, run, normalize_text]}",
            "spec.config.lowercase",
            id="an extension that ships knows its own configuration",
        ),
        pytest.param(
            "{words: ten}",
            "configSchema: {properties: {words: {type: integer}}}",
            "spec.config.words",
            id="a manifest that states a schema",
        ),
        pytest.param("{}", "configSchema: {type: nonsense}", "spec.configSchema", id="a schema that is none"),
    ],
)
def test_validate_names_the_field_of_a_wrong_configuration(
    config: str, more: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "guard.yaml"
    file.write_text(MANIFEST.format(config=config, more=more))
    assert main(["validate", str(file)]) == 1
    assert f"{told}: " in capsys.readouterr().out
