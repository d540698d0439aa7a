"""The examples of docs/admin-api.md: each curl line is run by a real curl against a real `beamline up`, in
the order of the page, and answers with the status and the shape that stand there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.laptop import Up

PAGE = Path(__file__).resolve().parents[2] / "docs" / "admin-api.md"
URL = "http://127.0.0.1:8081"


def examples() -> list[tuple[str, int, Any]]:
    """(command, status, what it answers) of each curl line; a JSON block right after is the last one's."""
    found: list[tuple[str, int, Any]] = []
    blocks = re.compile(r"```sh\n(.*?)```(?:\n\n```json\n(.*?)```)?", re.DOTALL)
    for commands, answer in blocks.findall(PAGE.read_text()):
        for line in commands.splitlines():
            command, mark, status = line.rpartition(" # ")
            assert mark, f"an example must end with the status that it answers: {line}"
            found.append((command, int(status), None))
        if answer:
            found[-1] = (*found[-1][:2], json.loads(answer))
    return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    made = Up(tmp_path_factory.mktemp("curl"))
    try:
        yield made.ready()
    finally:
        made.stop()


def test_every_example_answers_what_the_page_says(up: Up, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "install curl: the page's examples can't be run without it"
    said = re.search(r"Admin API: (http://\S+?)/api/v1 with 'Authorization: Bearer (\S+)'", up.said)
    assert said is not None, up.said
    url, token = said.groups()
    assert up.route("hello")[0] == 200
    listed = examples()
    assert len(listed) >= 20
    assert sum(shape is not None for _, _, shape in listed) >= 10
    for command, status, shape in listed:
        body = tmp_path / "body"
        line = f"{command.replace(URL, url)} -sS -o '{body}' -w '%{{http_code}}' --max-time 60"
        done = subprocess.run(
            ["bash", "-c", line], check=False, capture_output=True, text=True, timeout=90,
            env={**os.environ, "TOKEN": token},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        text = body.read_text()
        assert int(done.stdout) == status, f"{command}: {text}"
        if shape is not None:
            assert (wrong := unlike(shape, json.loads(text))) is None, f"{command}: {wrong} in {text}"


def unlike(said: Any, found: Any, at: str = "$") -> str | None:
    """Where ``found`` lacks what the page shows, or has another type; "..." is any text."""
    if isinstance(said, dict):
        if not isinstance(found, dict):
            return f"{at} is no object"
        for name, value in said.items():
            if name not in found:
                return f"{at}.{name} is missing"
            if (wrong := unlike(value, found[name], f"{at}.{name}")) is not None:
                return wrong
    elif isinstance(said, list):
        if not isinstance(found, list) or (said and not found):
            return f"{at} is no list, or empty"
        return unlike(said[0], found[0], f"{at}[0]") if said else None
    elif isinstance(said, str):
        if not isinstance(found, str) or said not in {"...", found}:
            return f"{at} is {found!r}"
    elif isinstance(said, bool) or said is None:
        return None if said is found else f"{at} is {found!r}"
    elif isinstance(found, bool) or not isinstance(found, int | float):
        return f"{at} is no number"
    return None


@pytest.mark.parametrize(
    ("said", "found"),
    [
        pytest.param({"a": 1}, {}, id="a key that is missing"),
        pytest.param({"a": [{"b": 1}]}, {"a": []}, id="an empty list"),
        pytest.param({"a": "x"}, {"a": "y"}, id="another word"),
        pytest.param({"a": 1}, {"a": "1"}, id="another type"),
        pytest.param({"a": None}, {"a": 1}, id="something in place of null"),
    ],
)
def test_another_shape_is_noticed(said: Any, found: Any) -> None:
    assert unlike(said, found) is not None
