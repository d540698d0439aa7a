"""The images that the end-to-end suite runs: the one under test, one that comes after it, one before it.

``python scripts/e2e_images.py [--load COMMAND]`` builds the image as `make image` does, then NAME-next and
NAME-previous from it (another label and variable on top, so that they are images of their own), and runs
COMMAND with each name, which brings it into the cluster (``kind load docker-image``).

``--previous IMAGE`` takes a released image for the previous one instead of a derived one.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build_image


def derived(tool: str, name: str, word: str) -> str:
    """Builds ``NAME-WORD``, which differs from NAME in a label and a variable; returns its name."""
    made = f"{name}-{word}"
    with tempfile.TemporaryDirectory() as folder:
        text = f"FROM {name}\nLABEL org.opencontainers.image.ref.name={word}\nENV BEAMLINE_E2E_BUILD={word}\n"
        (Path(folder) / "Dockerfile").write_text(text)
        pull = ["--pull-never"] if tool == "buildah" else []
        subprocess.run([*build_image.BUILDERS[tool], *pull, "--tag", made, folder], check=True)
    return made


def main(arguments: list[str]) -> int:
    """Builds and loads; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default=os.environ.get("BEAMLINE_E2E_IMAGE") or build_image.NAME)
    parser.add_argument("--load", default="", help="command that takes an image's name")
    parser.add_argument("--previous", default="", help="a released image to upgrade from")
    chosen = parser.parse_args(arguments)
    tool = build_image.builder()
    if tool is None:
        print(build_image.HOW_TO_GET_ONE)
        return 69
    code = build_image.main(["--name", chosen.name])
    if code != 0:
        return code
    names = [chosen.name, derived(tool, chosen.name, "next")]
    names.append(chosen.previous or derived(tool, chosen.name, "previous"))
    for name in names if chosen.load else ():
        print(f"loading {name}", flush=True)
        subprocess.run([*shlex.split(chosen.load), name], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
