"""What ``beamline new`` makes is built, passes its tests and the conformance suite, and serves a router.

A language whose toolchain is missing is skipped with a line that says so; where ``CI`` is set it fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamline_cli.local.nats import LocalNats
from beamline_cli.scaffold.render import LANGUAGES, Extension, Language, render, write
from beamline_contract.names import EXTENSION_TYPES, ExtensionType
from beamline_sdk.conformance import Outcome, Target
from harness.conformance_runs import checked
from harness.laptop import Up
from harness.otlp import ERROR, SERVER, Collector, attributes

TOOLS: dict[Language, tuple[str, ...]] = {"python": (), "go": ("go",), "node": ("node", "npm")}
SERVED: tuple[ExtensionType, ...] = ("provider", "validator")
BUILD_SECONDS = 150


@dataclass
class Made:
    """A generated folder that is built. ``command`` serves it from anywhere."""

    extension: Extension
    folder: Path
    command: tuple[str, ...]


def run(folder: Path, *command: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GOFLAGS": "-mod=mod"}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


class Workshop:
    """Builds each extension once; what packages a language needs is fetched once as well."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: dict[tuple[Language, ExtensionType], Made] = {}

    def make(self, language: Language, kind: ExtensionType) -> Made:
        if (language, kind) not in self._made:
            missing = [tool for tool in TOOLS[language] if shutil.which(tool) is None]
            if missing:
                reason = f"{', '.join(missing)} not on PATH: install it to build {language} extensions"
                if os.environ.get("CI"):
                    pytest.fail(reason)
                pytest.skip(reason)
            extension = Extension(f"made-{language}-{kind}", kind, language)
            folder = self.root / extension.name
            write(folder, render(extension))
            self._made[language, kind] = Made(extension, folder, self._built(extension, folder))
        return self._made[language, kind]

    def _built(self, extension: Extension, folder: Path) -> tuple[str, ...]:
        match extension.language:
            case "python":
                return sys.executable, str(folder / f"{extension.id}.py")
            case "go":
                run(folder, "go", "vet", ".")
                run(folder, "go", "build", "-o", extension.name, ".")
                assert run(folder, "gofmt", "-l", ".") == ""
                return (str(folder / extension.name),)
            case "node":
                packages = self.root / "node_modules"
                if not packages.exists():
                    shutil.copy(folder / "package.json", self.root)
                    run(self.root, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error")
                (folder / "node_modules").symlink_to(packages)
                return str(shutil.which("node")), str(folder / "extension.js")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.xdist_group("toolchains")
@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_is_made_builds_and_passes_its_tests_and_the_suite(
    language: Language, workshop: Workshop, nats_server: LocalNats, tmp_path: Path
) -> None:
    built = [workshop.make(language, kind) for kind in EXTENSION_TYPES]
    made = [one for one in built if one.extension.kind in SERVED]  # the other two differ in one function
    for one in built:
        match language:
            case "python":
                run(one.folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
            case "go":
                run(one.folder, "go", "test", ".")
            case "node":
                run(one.folder, str(shutil.which("node")), "--test")
    targets = [Target.of(one.extension.subject) for one in made]
    reports = await asyncio.gather(
        *(
            checked(nats_server, tmp_path / one.extension.name, one.command, target)
            for one, target in zip(made, targets, strict=True)
        )
    )
    for one, report in zip(made, reports, strict=True):
        failed = {r.check.id: r.detail for r in report.results if r.outcome is Outcome.FAILED}
        assert not failed, f"{one.extension.name}: {failed}"
        expected = () if one.extension.kind == "provider" else ("streaming",)
        assert report.of(Outcome.NOT_CHECKED) == expected
        details = {r.check.id: r.detail for r in report.results}
        assert details["deadline"].startswith("gave up after")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that a PostgreSQL of another user may reach: pytest closes its own to everybody else."""
    folder = Path(tempfile.mkdtemp(prefix="beamline-test-new-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def policy(language: str) -> dict[str, Any]:
    validator, provider = (f"made-{language}-{kind}" for kind in ("validator", "provider"))
    return {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": language},
        "spec": {
            "match": {"models": [language]},
            "steps": [
                {"action": "extension_validator", "extensionRef": {"name": validator}},
                {"action": "select_provider", "providers": [{"extensionRef": {"name": provider}}]},
            ],
        },
    }


def ask(up: Up, model: str, prompt: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"model": model, "prompt": prompt, "parameters": parameters}).encode()
    request = urllib.request.Request(
        f"{up.url}/v1/route", body, {"content-type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def streamed(up: Up, model: str, prompt: str) -> list[str]:
    """The texts of the chunks that the OpenAI door streams."""
    asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    request = urllib.request.Request(
        f"{up.url}/v1/chat/completions", json.dumps(asked).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        rows = [line.removeprefix("data: ") for line in reply.read().decode().splitlines() if line]
    assert rows[-1] == "[DONE]"
    choices = [choice for row in rows[:-1] for choice in json.loads(row)["choices"]]
    assert choices[-1]["finish_reason"] == "stop"
    return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]


def served(up: Up, language: str) -> tuple[int, dict[str, Any]]:
    """The answer to a first request, once all the processes of its way listen."""
    give_up = time.monotonic() + 30
    while True:
        status, answer = ask(up, language, "hello")
        if status != 503 or time.monotonic() > give_up:
            return status, answer
        time.sleep(0.1)


def traced(collector: Collector, language: Language) -> None:
    """The spans of a language's two extensions hang below the router's attempts and hold no content."""
    attempts = {span.span_id: span for span in collector.named("router.extension.invoke")}
    for kind in SERVED:
        name = f"made_{language}_{kind}"
        spans = [span for service, span in collector.by_service() if service == f"beamline-{name}"]
        assert spans, f"{name} sent no span"
        for span in spans:
            assert (span.name, span.kind) == (f"router.extension.{kind}", SERVER)
            above = attempts[span.parent_span_id]
            assert above.trace_id == span.trace_id
            assert (
                attributes(above)["beamline.extension_id"]
                == attributes(span)["beamline.extension_id"]
                == name
            )
            assert span.start_time_unix_nano < span.end_time_unix_nano or language == "node"
    late = [span for span in spans if span.status.code == ERROR]
    assert {attributes(span)["error.type"] for span in late} <= {"DEADLINE_EXCEEDED", "CANCELLED"}
    assert late, "the one that was too slow"
    assert all(b"forbidden word" not in body and b"one two three" not in body for body in collector.bodies)


@pytest.mark.xdist_group("toolchains")
def test_their_own_manifests_put_them_behind_the_router_and_into_its_traces(
    workshop: Workshop, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    there: list[Language] = [
        language for language in LANGUAGES if all(shutil.which(tool) for tool in TOOLS[language])
    ]
    folder = place / "manifests"
    folder.mkdir()
    for language in there:
        documents = [policy(language)]
        for kind in SERVED:
            one = workshop.make(language, kind)
            manifest = yaml.safe_load((one.folder / "manifest.yaml").read_text())
            manifest["spec"]["workload"]["command"] = list(one.command)
            manifest["spec"].update({"timeoutMs": 2000, "retry": 0})
            documents.append(manifest)
        (folder / f"{language}.yaml").write_text(yaml.safe_dump_all(documents))
    up = Up(place, folder=folder)
    try:
        up.ready()
        for language in there:
            status, answer = served(up, language)
            assert (status, answer.get("output", "").strip()) == (200, "You said: hello"), (
                f"{answer}\n{up.said}"
            )
            assert answer["provider_id"] == f"made_{language}_provider"
            status, answer = ask(up, language, "a forbidden word")
            assert (status, answer["error"]["code"]) == (422, "VALIDATION_REJECTED")
            words = streamed(up, language, "one two three")
            assert "".join(words).strip() == "You said: one two three"
            assert len(words) > 2, "it came in parts, as the extension sent it"
            status, answer = ask(up, language, "hello", latency_ms=5000)
            assert answer["error"]["code"] in {"DEADLINE_EXCEEDED", "UNAVAILABLE"}, answer
    finally:
        if up.process.poll() is None:
            up.stop()
        collector.stop()
    assert up.left_behind() == []
    for language in there:
        traced(collector, language)
