"""schemathesis against the application over HTTP, with a real PostgreSQL: all checks and phases, one seed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.served_admin import TOKEN, served

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(database_url: str, tmp_path: Path) -> None:
    """As anybody would run it: the committed document, and the project's own schemathesis.toml."""
    path = os.pathsep.join((str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")))
    with served(database_url) as url:
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli",
                "--config-file", str(ROOT / "schemathesis.toml"),
                "run", str(ROOT / "docs" / "openapi" / "admin.json"),
                "--url", url, "--header", f"Authorization: Bearer {TOKEN}",
                "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful",
                "--max-examples", "3", "--seed", "8", "--generation-deterministic",
                "--request-timeout", "20", "--no-color",
            ],
            check=False, capture_output=True, text=True, cwd=tmp_path, timeout=850,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "harness.schemathesis_hooks", "PYTHONPATH": path},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found is not None, done.stdout
    assert int(found.group(2)) == int(found.group(1)) > 500
    assert "Operations:       " in done.stdout
    selected = re.search(r"Selected: (\d+)/(\d+)", done.stdout)
    assert selected is not None, done.stdout
    assert selected.group(1) == selected.group(2), "every route of the document"
