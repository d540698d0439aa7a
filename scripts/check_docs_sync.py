"""Keeps the documentation honest: pages exist, links resolve, make targets and suites that are named are
real.

Run by `make check` and as a pre-commit hook (.pre-commit-config.yaml). Exit code 1 with one line per fault.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "docs/architecture.md",
    "docs/e2e-guide.md",
    "docs/extension-developer-guide.md",
    "docs/extensions/README.md",
    "docs/extensions/first.md",
    "docs/extensions/wire.md",
    "docs/invocation-flow.md",
    "docs/metrics.md",
    "docs/observability.md",
    "docs/provider-development-guide.md",
    "docs/cli.md",
    "docs/registry-operations.md",
    "docs/registry-schema.md",
    "docs/routing-policy.md",
    "docs/routing-strategy.md",
    "docs/runbook.md",
    "docs/slo.md",
    "docs/wire-contract.md",
)
CI_FILES = (".github/workflows/ci.yml", ".gitlab-ci.yml")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6}\s+(.*)$", re.MULTILINE)
_MAKE = re.compile(r"`make ([a-z][a-z0-9-]*)")


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def anchor(heading: str) -> str:
    """The fragment that a forge makes of a heading: lower case, punctuation dropped, blanks to hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def faults() -> Iterator[str]:
    for page in PAGES:
        if not (ROOT / page).exists():
            yield f"{page}: missing"
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in tracked("*.md"):
        text = page.read_text()
        name = page.relative_to(ROOT)
        for target in _MAKE.findall(text):
            if target not in targets:
                yield f"{name}: `make {target}` is not a target of the Makefile"
        for link in _LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, fragment = link.partition("#")
            goal = (page.parent / path).resolve() if path else page
            if not goal.exists():
                yield f"{name}: link to {link} leads nowhere"
            elif (
                fragment
                and goal.suffix == ".md"
                and fragment not in map(anchor, _HEADING.findall(goal.read_text()))
            ):
                yield f"{name}: {path or 'this page'} has no heading #{fragment}"
    suites = {path.relative_to(ROOT / "tests").parts[0] for path in tracked("tests/*/**test_*.py")}
    for ci in CI_FILES:
        text = (ROOT / ci).read_text()
        for suite in sorted(suites):
            if suite not in text:
                yield f"{ci}: the suite tests/{suite} is not named"


def main() -> int:
    found = list(faults())
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
