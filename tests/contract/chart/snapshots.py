"""Snapshots of renderings, of what a switch changes of them, and of what Helm says to wrong values.

After a change that is meant: ``BEAMLINE_UPDATE_SNAPSHOTS=1 pytest tests/contract/chart``.
"""

from __future__ import annotations

import os
import re
from difflib import unified_diff
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "snapshots"


def compare(name: str, text: str) -> None:
    """``text`` is what the snapshot ``name`` holds; with the variable set it becomes that."""
    path = FOLDER / name
    if os.environ.get("BEAMLINE_UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text.splitlines() == path.read_text().splitlines()


def switch(name: str) -> str:
    """The snapshot of a switch's effect."""
    return f"switches/{_slug(name)}.diff"


def refusal(name: str) -> str:
    """The snapshot of a refusal."""
    return f"refusals/{_slug(name)}.txt"


def difference(before: str, after: str) -> str:
    """What changed, without line numbers, which would move with every line above, and without whole CRDs."""
    changed = [
        re.sub(r"^@@.*@@$", "@@", line)
        for line in unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    ][2:]
    assert changed, "a switch that changes nothing is none"
    if any("CustomResourceDefinition" in line or "openAPIV3Schema" in line for line in changed):
        return "the definitions\n"
    return "\n".join(changed) + "\n"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
