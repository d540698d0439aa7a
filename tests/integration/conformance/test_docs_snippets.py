"""Every snippet under docs/extensions, and the one in the SDK's README, does what the page says.

Python is run, YAML is validated, commands are executed, and the JSON of a request is sent to the extension
of its subject, whose answer must hold what the page shows. A block of any other sort fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from beamline_cli.commands.check import checked
from beamline_cli.local.nats import LocalNats
from beamline_extensions.catalogue import names
from beamline_sdk import Extension

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted((ROOT / "docs" / "extensions").rglob("*.md"))
README = ROOT / "providers" / "beamline_sdk" / "README.md"
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVE = re.compile(r"NATS_URL=\S+ python (\w+)\.py")


@dataclass(frozen=True)
class Snippet:
    """One fenced block; ``sort`` is what stands behind the fence."""

    page: Path
    sort: str
    text: str


def snippets(page: Path) -> list[Snippet]:
    return [Snippet(page, sort.strip(), text) for sort, text in _FENCE.findall(page.read_text())]


ALL = [snippet for page in PAGES for snippet in snippets(page)]


def of(sort: str) -> list[Any]:
    return [
        pytest.param(one, id=f"{one.page.relative_to(ROOT / 'docs')} {number}")
        for number, one in enumerate(one for one in ALL if one.sort == sort)
    ]


def executed(text: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(text, "snippet", "exec"), namespace)
    return namespace


def environment(url: str) -> dict[str, str]:
    found = {
        "NATS_URL": url,
        "METRICS_PORT": "0",
        "LOG_SILENT": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return {**os.environ, **found}


@asynccontextmanager
async def served(text: str | None, name: str, url: str, folder: Path) -> AsyncIterator[nats.NATS]:
    """A process with the page's own extension (``text``), or one that ships; and a connection to ask it."""
    command = [sys.executable, "-m", "beamline_extensions", name]
    if text is not None:
        script = folder / f"{name}.py"
        await asyncio.to_thread(script.write_text, text)
        command = [sys.executable, str(script)]
    process = await asyncio.create_subprocess_exec(*command, env=environment(url))
    nc = await nats.connect(url)
    try:
        yield nc
    finally:
        await nc.close()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def asked(nc: nats.NATS, subject: str, payload: bytes) -> Any:
    for _ in range(600):
        try:
            return json.loads((await nc.request(subject, payload, timeout=5)).data)
        except (NoRespondersError, NatsTimeoutError):
            await asyncio.sleep(0.05)
    raise AssertionError(f"nobody answers on {subject}")


def holds(answer: Any, shown: Any) -> bool:
    """Whether ``answer`` has everything that the page shows."""
    if isinstance(shown, Mapping) and isinstance(answer, Mapping):
        return all(key in answer and holds(answer[key], value) for key, value in shown.items())
    return bool(answer == shown)


@pytest.mark.parametrize("snippet", of("python"))
def test_python_runs(snippet: Snippet) -> None:
    made = executed(snippet.text)
    assert any(isinstance(value, Extension) for value in made.values())


@pytest.mark.parametrize("snippet", of("yaml"))
def test_yaml_is_valid(snippet: Snippet, tmp_path: Path) -> None:
    file = tmp_path / "manifest.yaml"
    file.write_text(snippet.text)
    faults, objects = checked([file])
    assert faults == []
    assert objects


@pytest.mark.parametrize("snippet", of("sh"))
def test_commands_succeed(snippet: Snippet, nats_server: LocalNats, tmp_path: Path) -> None:
    env = environment(nats_server.url) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env.pop("NATS_URL")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for line in snippet.text.splitlines():
        if _SERVE.fullmatch(line):
            continue  # served by the test of the requests, below
        words = shlex.split(line)
        assert words[0] == "beamline", f"{snippet.page.name}: no test can run {line!r}"
        done = subprocess.run(
            [sys.executable, "-m", "beamline_cli", *words[1:]],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=p.name) for p in PAGES if any("json" in s.sort for s in snippets(p))]
)
async def test_requests_are_answered_as_the_page_says(
    page: Path, nats_server: LocalNats, tmp_path: Path
) -> None:
    found = snippets(page)
    own = {
        value.name: one.text
        for one in found
        if one.sort == "python"
        for value in executed(one.text).values()
        if isinstance(value, Extension)
    }
    talks = [one for one in found if one.sort.startswith("json")]
    assert len(talks) % 2 == 0
    for request, reply in zip(talks[::2], talks[1::2], strict=True):
        (subject,) = re.findall(r"^json request (\S+)$", request.sort)
        assert reply.sort == "json reply"
        name = subject.split(".")[-2]
        assert name in own or name in names()
        async with served(own.get(name), name, nats_server.url, tmp_path) as nc:
            answer = await asked(nc, subject, request.text.encode())
        assert holds(answer, json.loads(reply.text)), answer


async def test_the_extension_of_the_sdk_readme_works_in_15_lines(
    nats_server: LocalNats, tmp_path: Path
) -> None:
    (snippet,) = snippets(README)
    assert len([line for line in snippet.text.splitlines() if line.strip()]) <= 15
    subject = "beamline.ext.validate.word_guard.v1"
    async with served(snippet.text, "word_guard", nats_server.url, tmp_path) as nc:
        assert await asked(nc, subject, b'{"prompt": "fine"}') == {"verdict": "pass"}
        said = await asked(nc, subject, b'{"prompt": "no", "config": {"denied": ["no"]}}')
        assert said == {"verdict": "reject", "reason": "a denied word"}


def test_every_block_is_of_a_sort_that_is_executed() -> None:
    known = re.compile(r"python|yaml|sh|json request \S+|json reply")
    assert [f"{one.page.name}: {one.sort!r}" for one in ALL if not known.fullmatch(one.sort)] == []
