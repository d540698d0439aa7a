"""Builds the container image with docker, podman or buildah, whichever works; reports size and start time.

``--name`` gives the image's name; what follows ``--`` goes to the builder as it is, as in ``python
scripts/build_image.py -- --platform linux/arm64``. The labels carry version, commit and the commit's time, so
the same commit gives the same labels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from beamline_contract import __version__

ROOT = Path(__file__).resolve().parent.parent
NAME = f"ghcr.io/beamline/beamline:{__version__}"
BUILDERS: dict[str, list[str]] = {
    "docker": ["docker", "build"],
    "podman": ["podman", "build"],
    "buildah": ["buildah", "bud"],
}
PROBES: dict[str, list[str]] = {
    "docker": ["docker", "info"],
    "podman": ["podman", "info"],
    "buildah": ["buildah", "version"],
}
HOW_TO_GET_ONE = "no image can be built here: install docker (and start it), podman or buildah"


def builder() -> str | None:
    """The first builder that is installed and works."""
    for name, probe in PROBES.items():
        works = shutil.which(name) and subprocess.run(probe, capture_output=True, check=False).returncode == 0
        if works:
            return name
    return None


def command(tool: str, name: str, more: list[str]) -> list[str]:
    """The whole command line that builds the image."""
    revision = _git("rev-parse", "HEAD") or "unknown"
    committed = datetime.fromtimestamp(int(_git("show", "--no-patch", "--format=%ct") or 0), UTC)
    values = {
        "VERSION": __version__,
        "REVISION": revision,
        "CREATED": committed.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    arguments = [word for key, value in values.items() for word in ("--build-arg", f"{key}={value}")]
    return [*BUILDERS[tool], "--tag", name, *arguments, *more, str(ROOT)]


def report(tool: str, name: str) -> str:
    """Size of the image, and seconds from `run` to the version line, where the tool can run one."""
    if tool == "buildah":
        listed = json.loads(_output("buildah", "images", "--json", name))
        return f"{name}: {listed[0]['size']}"
    size = int(_output(tool, "image", "inspect", "--format", "{{.Size}}", name))
    began = time.monotonic()
    run = ["run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none"]
    _output(tool, *run, name, "--version")
    return f"{name}: {size / 1e6:.0f} MB, starts in {time.monotonic() - began:.1f} s"


def main(arguments: list[str]) -> int:
    """Builds; returns the exit code."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default=NAME, help=f"name and tag; default: {NAME}")
    chosen = parser.parse_args(arguments[:split])
    tool = builder()
    if tool is None:
        print(HOW_TO_GET_ONE)
        return 69
    print(f"building {chosen.name} with {tool}", flush=True)
    built = subprocess.run(command(tool, chosen.name, arguments[split + 1 :]), cwd=ROOT, check=False)
    if built.returncode == 0:
        print(report(tool, chosen.name))
    return built.returncode


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
