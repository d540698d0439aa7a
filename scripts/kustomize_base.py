"""Writes deploy/kustomize/base/beamline.yaml: the chart as Helm renders it, for those without Helm.

``--helm PATH`` names the program, default ``helm``; ``--check`` says if the file is stale (exit code 1).
Hooks stay out: nothing would run them. Without the pre-delete hook, ``beamline doctor --release-finalizers``
does its work before a removal (docs/install/uninstall.md).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "kustomize"
BASE = FOLDER / "base" / "beamline.yaml"
_HEAD = "# Written by scripts/kustomize_base.py from charts/beamline: edit that, or patch it in an overlay.\n"


def rendered(helm: str) -> str:
    """The manifests. Raises ``CalledProcessError`` where Helm refuses."""
    values = ["--values", str(FOLDER / "values.yaml")]
    command = [helm, "template", "beamline", str(ROOT / "charts" / "beamline"), "--namespace", "beamline"]
    more = ["--no-hooks", "--skip-tests", "--kube-version", "1.34.2"]
    done = subprocess.run([*command, *values, *more], check=True, capture_output=True, text=True)
    lines = (line.rstrip() for line in done.stdout.splitlines())
    return _HEAD + "\n".join(line for line in lines if not line.startswith("# Source:")) + "\n"


def main(arguments: list[str]) -> int:
    """Writes or checks; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--helm", default="helm", help="the program")
    parser.add_argument("--check", action="store_true", help="write nothing")
    chosen = parser.parse_args(arguments)
    try:
        text = rendered(chosen.helm)
    except FileNotFoundError:
        print(f"{chosen.helm} is not there: install Helm 3, or name it by --helm")
        return 69
    if chosen.check:
        fresh = BASE.exists() and BASE.read_text() == text
        if not fresh:
            print("deploy/kustomize/base/beamline.yaml is stale: run `python scripts/kustomize_base.py`")
        return 0 if fresh else 1
    BASE.write_text(text)
    print(f"wrote {BASE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
