"""Builds the container image with docker, podman or buildah, whichever works; reports size and start time.

``--name`` gives the image's name; what follows ``--`` goes to the builder as it is, as in ``python
scripts/build_image.py -- --platform linux/arm64``, and so do the words of ``BEAMLINE_IMAGE_ARGUMENTS``, for
machines where every build needs them (a mounted certificate store, a base that is not to be pulled). The
labels carry version, commit and the commit's time, so the same commit gives the same labels.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
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
    """Size of the image, of that our own layers, and seconds from `run` to the version line."""
    total, base = size(tool, name), size(tool, base_image())
    ours = f", {(total - base) / 1e6:.0f} MB of it on top of {base_image()}" if 0 < base < total else ""
    return f"{name}: {total / 1e6:.0f} MB{ours}; starts in {start_seconds(tool, name):.1f} s"


def size(tool: str, name: str) -> int:
    """Bytes of an image with all its layers; 0 where the builder does not know it."""
    try:
        if tool == "buildah":
            return readable(json.loads(_output("buildah", "images", "--json", name))[0]["size"])
        return int(_output(tool, "image", "inspect", "--format", "{{.Size}}", name))
    except subprocess.CalledProcessError:
        return 0


def readable(text: str) -> int:
    """Bytes of a size as buildah prints it, such as ``602 MB``."""
    number, unit = text.split()
    return round(float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()])


def base_image() -> str:
    """What the last stage of the Dockerfile stands on."""
    return re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]


def start_seconds(tool: str, name: str) -> float:
    """From the command to the printed version, without a network and on a read-only root where that can be
    had.
    """
    if tool != "buildah":
        run = [tool, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none"]
        return _seconds(*run, name, "--version")
    container = _output("buildah", "from", "--pull-never", name).strip()
    try:
        return _seconds("buildah", "run", container, "--", "beamline", "--version")
    finally:
        _output("buildah", "rm", container)


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
    more = [*shlex.split(os.environ.get("BEAMLINE_IMAGE_ARGUMENTS", "")), *arguments[split + 1 :]]
    built = subprocess.run(command(tool, chosen.name, more), cwd=ROOT, check=False)
    if built.returncode == 0:
        print(report(tool, chosen.name))
    return built.returncode


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _seconds(*words: str) -> float:
    began = time.monotonic()
    _output(*words)
    return time.monotonic() - began


def _output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
