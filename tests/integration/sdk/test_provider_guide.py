"""Every program in the provider development guide runs and prints what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "provider-development-guide.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = _BLOCK.findall(PAGE.read_text())
PROGRAMS = [(code, BLOCKS[place + 1][1]) for place, (kind, code) in enumerate(BLOCKS) if kind == "python"]
FILES = {"providers.yaml": next(text for kind, text in BLOCKS if kind == "yaml")}


def test_each_program_is_followed_by_what_it_prints() -> None:
    kinds = [kind for kind, _ in BLOCKS if kind != "yaml"]
    assert kinds == ["python", "text"] * len(PROGRAMS)
    assert len(PROGRAMS) == 5


@pytest.mark.parametrize(("code", "printed"), PROGRAMS)
def test_a_program_prints_what_the_page_says(code: str, printed: str, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "program.py").write_text(code)
    command = [sys.executable, "-W", "error", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not re.match(r"\S+ \S+ \[\w+\s*\]", line)]
    assert said == printed.splitlines()
