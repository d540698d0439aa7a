"""The benchmark can be started: a row that is never run in a test must still fit what it is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOAD_ALL = """
from importlib import import_module
from bench.run import ROWS
for name, module in ROWS.items():
    assert callable(import_module(module).run), name
"""


def test_every_row_of_the_benchmark_can_be_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
