"""The whole suite: in parallel where it is safe, then the tests that own the machine, then the coverage of
both.

`make test` runs it. Arguments are passed on to pytest (`python scripts/run_tests.py -k breaker`); with any,
coverage has no floor, because only a part ran.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NO_TESTS_COLLECTED = 5


def run(*arguments: str) -> int:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode


def main() -> int:
    chosen = sys.argv[1:]
    for old in ROOT.glob(".coverage*"):
        old.unlink()
    workers = str(max(2, min(os.cpu_count() or 2, 8)))
    pytest = ["-m", "pytest", "--cov", "--cov-report="]
    parallel = run(*pytest, "-m", "not serial", "-n", workers, "--dist", "loadgroup", *chosen)
    alone = run(*pytest, "--cov-append", "-m", "serial", *chosen)
    floor = ["--fail-under=0"] if chosen else []
    covered = run("-m", "coverage", "report", *floor)
    outcomes = [code for code in (parallel, alone) if code not in {0, NO_TESTS_COLLECTED}]
    if parallel == alone == NO_TESTS_COLLECTED:
        return NO_TESTS_COLLECTED
    return outcomes[0] if outcomes else covered


if __name__ == "__main__":
    raise SystemExit(main())
