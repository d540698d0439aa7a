"""Every `beamline` command that a page or a manifest shows is one that this program takes, and every value
that a page sets with Helm is one of the chart. Commands are parsed, not run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from beamline_cli.main import app

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "charts/**/*.md", "examples/**/*.md", "deploy/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
VALUES = yaml.safe_load((ROOT / "charts" / "beamline" / "values.yaml").read_text())
_FENCE = re.compile(r"```(?:console|sh|bash|shell)\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`(beamline [^`]+)`")
_SET = re.compile(r"--set[= ]+('[^']*'|\"[^\"]*\"|\S+)")
_PLACEHOLDER = re.compile(r"\[[^\]]*\]|\.\.\.|…")


def command_lines(text: str) -> Iterator[str]:
    """Lines that begin with `beamline`, or run it by `--`, in blocks and between backquotes."""
    for block in _FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s+(?:&&|\|\|?|;|>>?)\s+", line.removeprefix("$ ").strip()):
                plain = part.removesuffix("&").strip()
                if plain.startswith("beamline "):
                    yield plain
                elif " -- beamline " in plain:
                    yield plain.partition(" -- ")[2]
    yield from (line for line in _INLINE.findall(text) if not line.startswith("beamline COMMAND"))


def words_of(line: str) -> list[str]:
    """The arguments, without what only stands for something, comments and what is optional."""
    bare = _PLACEHOLDER.sub(" ", line.partition("  #")[0])
    return shlex.split(bare, comments=True)[1:]


def fault(words: list[str]) -> str | None:
    """What the program would refuse of a command line: an unknown command or option; missing ones are left
    out in prose.
    """
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name, words = words[0], words[1:]
        if name not in command.commands:
            return f"there is no command {name!r}"
        command = command.commands[name]
    known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("-") and flag not in {"-", "--", "-h", "--help"} and flag not in known:
            return f"{flag} is no option of it"
    return None


SHOWN = {
    f"{page.relative_to(ROOT)}: {line}": line for page in PAGES for line in command_lines(page.read_text())
}


@pytest.mark.parametrize("shown", SHOWN)
def test_a_command_that_is_shown_can_be_typed(shown: str) -> None:
    assert fault(words_of(SHOWN[shown])) is None


def test_there_are_commands_to_look_at() -> None:
    assert len(SHOWN) > 60


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("beamline chek", "there is no command 'chek'"),
        ("beamline audit verfy", "there is no command 'verfy'"),
        ("beamline get ext --namespaces x", "--namespaces is no option"),
        ("beamline logs router --folow", "--folow is no option"),
    ],
    ids=["a command", "a command of a group", "an option", "another"],
)
def test_a_typing_error_is_found(line: str, words: str) -> None:
    assert words in str(fault(words_of(line)))


def lists(node: Any) -> Iterator[list[str]]:
    """Every list of words in a document."""
    if isinstance(node, dict):
        for value in node.values():
            yield from lists(value)
    elif isinstance(node, list):
        if node and all(isinstance(word, str | int | float) for word in node):
            yield [str(word) for word in node]
        for value in node:
            yield from lists(value)


def test_what_compose_and_the_manifests_start_can_be_started() -> None:
    files = [
        *sorted((ROOT / "examples").rglob("*.yaml")),
        *sorted((ROOT / "deploy").rglob("*.yaml")),
        ROOT / "deploy" / "compose" / "docker-compose.yml",
    ]
    started = [
        (str(path.relative_to(ROOT)), words[1:])
        for path in files
        for document in yaml.safe_load_all(path.read_text())
        for words in lists(document)
        if words[0] == "beamline" and len(words) > 1
    ]
    assert {path.split("/")[0] for path, _ in started} == {"examples", "deploy"}
    assert [(path, fault(words)) for path, words in started if fault(words)] == []


@pytest.mark.parametrize("values", ["bundled", "existing"])
def test_what_the_chart_starts_can_be_started(values: str) -> None:
    snapshot = ROOT / "tests" / "contract" / "chart" / "snapshots" / f"{values}.yaml"
    started = {
        container["name"]: [str(word) for word in container["args"]]
        for document in yaml.safe_load_all(snapshot.read_text())
        for container in containers(document)
        if "beamline" in container["image"] and container.get("args")
    }
    assert {"operator", "router", "wait-for-migration", "test"} <= started.keys()
    assert {name: fault(words) for name, words in started.items() if fault(words)} == {}


def containers(document: Any) -> Iterator[dict[str, Any]]:
    """Every container of a pod, wherever its template stands."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name in {"containers", "initContainers"}:
                yield from value
            yield from containers(value)
    elif isinstance(document, list):
        for value in document:
            yield from containers(value)


def test_every_value_that_a_page_sets_is_one_of_the_chart() -> None:
    unknown = []
    for page in PAGES:
        for match in _SET.findall(page.read_text()):
            for one in re.split(r",(?![^{]*\})", match.strip("'\"`")):
                path = re.sub(r"\[\d+\].*", "", one.partition("=")[0])
                if not known_value(path):
                    unknown.append(f"{page.relative_to(ROOT)}: {path}")
    assert unknown == []


def known_value(path: str) -> bool:
    node: Any = VALUES
    for name in path.split("."):
        if not isinstance(node, dict) or name not in node:
            return isinstance(node, dict) and not node  # free form, such as nodeSelector
        node = node[name]
    return True


def test_a_value_that_is_none_is_found() -> None:
    assert not known_value("router.replica")
    assert known_value("operator.allowedImages")


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() -> None:
    alerts = {
        rule["alert"]
        for group in yaml.safe_load((ROOT / "deploy" / "observability" / "alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    text = (ROOT / "docs" / "runbook.md").read_text()
    sections = dict(re.findall(r"^## (Beamline\w+)\n\n(.+?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert sections.keys() == alerts
    assert all(len(body.split()) > 15 for body in sections.values())
