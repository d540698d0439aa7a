"""Renews definitions and the operator's rights in the chart that stands for the previous release in the
end-to-end suite.

That chart is frozen, and runs the code of today: an operator that refuses definitions without a field it
needs, or an account without a right, would never start there. So both follow; its values and its other
objects stay as they were.
With ``--check`` nothing is written, and a stale archive is exit code 1.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "tests" / "e2e" / "previous" / "beamline-0.0.9.tgz"
TEMPLATES = ROOT / "charts" / "beamline" / "templates"
INSIDE = "beamline/templates/"
RULES = re.compile(rb'\{\{- define "beamline\.rules" -\}\}.*?\{\{- end -\}\}', re.DOTALL)


def main() -> int:
    """Rewrites the archive in place; byte by byte the same where nothing changed."""
    with tarfile.open(CHART) as old:
        members = [(member, old.extractfile(member)) for member in old if member.isfile()]
        contents = [(member, file.read()) for member, file in members if file is not None]
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member, content in contents:
            renewed = _renewed(member.name.removeprefix(INSIDE), content)
            member.size = len(renewed)
            new.addfile(member, io.BytesIO(renewed))
    archive = gzip.compress(written.getvalue(), mtime=0)
    if "--check" in sys.argv[1:]:
        if gzip.decompress(CHART.read_bytes()) == written.getvalue():
            return 0
        sys.stdout.write(f"{CHART.relative_to(ROOT)} is stale: run `python scripts/previous_chart.py`\n")
        return 1
    CHART.write_bytes(archive)
    sys.stdout.write(f"wrote {CHART.relative_to(ROOT)}\n")
    return 0


def _renewed(name: str, content: bytes) -> bytes:
    if name.startswith("crds/"):
        return (TEMPLATES / name).read_bytes()
    if name == "rbac.yaml":
        [rules] = RULES.findall((TEMPLATES / name).read_bytes())
        return RULES.sub(lambda _: rules, content)
    return content


if __name__ == "__main__":
    raise SystemExit(main())
