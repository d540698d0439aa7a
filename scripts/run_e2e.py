"""The end-to-end suite on the cluster that KUBECONFIG names: `make e2e KUBECONFIG=path [CASE=words]`.

CASE chooses cases as pytest's -k does (``CASE=canary``, ``CASE="upgrade or uninstall"``). The outcome is also
written as JUnit, to build/e2e.xml. Exit codes are pytest's; 78 where no cluster is named.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JUNIT = ROOT / "build" / "e2e.xml"
NO_CLUSTER = (
    "make e2e needs to be told which cluster it may write to: make e2e KUBECONFIG=path\n"
    "It installs Beamline there, and at the end deletes it with its definitions and every object of theirs.\n"
    "No cluster at hand? make e2e-kind makes one, runs the suite on it and deletes it (docs/e2e-guide.md).\n"
)


def main() -> int:
    """Runs the suite; returns the exit code."""
    named = os.environ.get("KUBECONFIG", "")
    if not named:
        sys.stderr.write(NO_CLUSTER)
        return 78
    if not Path(named).expanduser().is_file():
        sys.stderr.write(
            f"KUBECONFIG={named} is no file: name one kubeconfig, as in make e2e KUBECONFIG=path\n"
        )
        return 78
    chosen = os.environ.get("CASE", "")
    command = [sys.executable, "-m", "pytest", "tests/e2e", "-v", "--durations=15", f"--junitxml={JUNIT}"]
    command += [
        "-o",
        "junit_family=xunit2",
        "-p",
        "no:xdist",
        *(["-k", chosen] if chosen else []),
        *sys.argv[1:],
    ]
    JUNIT.parent.mkdir(exist_ok=True)
    done = subprocess.run(
        command, cwd=ROOT, check=False, env={**os.environ, "BEAMLINE_E2E_KUBECONFIG": named}
    )
    print(f"JUnit: {JUNIT.relative_to(ROOT)}")
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
