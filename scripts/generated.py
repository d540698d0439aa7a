"""Everything here that is generated from code: written by `make crds`, checked by `make generated`.

A generated file and its generator are one line in :data:`GENERATORS`; both verbs run all of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
GENERATORS: tuple[tuple[str, list[str], list[str]], ...] = (
    (
        "crds/*.yaml",
        [PYTHON, "-m", "beamline_cli", "crds", "--write", "crds"],
        [PYTHON, "-m", "beamline_cli", "crds", "--check", "crds"],
    ),
    (
        "docs/crd-reference.md",
        [PYTHON, "scripts/crd_reference.py"],
        [PYTHON, "scripts/crd_reference.py", "--check"],
    ),
    (
        "docs/openapi/admin.json",
        [PYTHON, "-m", "beamline_admin.openapi", "--write", "docs/openapi/admin.json"],
        [PYTHON, "-m", "beamline_admin.openapi", "--check", "docs/openapi/admin.json"],
    ),
    (
        "charts/beamline/templates/crds/*.yaml",
        [PYTHON, "scripts/sync_chart_crds.py"],
        [PYTHON, "scripts/sync_chart_crds.py", "--check"],
    ),
    (
        "tests/e2e/previous/*.tgz",
        [PYTHON, "scripts/previous_chart.py"],
        [PYTHON, "scripts/previous_chart.py", "--check"],
    ),
    (
        "deploy/argocd/argocd-cm.yaml",
        [PYTHON, "scripts/argocd_config.py"],
        [PYTHON, "scripts/argocd_config.py", "--check"],
    ),
    (
        "docs/metrics.md",
        [PYTHON, "scripts/metrics_page.py"],
        [PYTHON, "scripts/metrics_page.py", "--check"],
    ),
    (
        "deploy/observability/*, charts/beamline/files/*",
        [PYTHON, "scripts/observability.py"],
        [PYTHON, "scripts/observability.py", "--check"],
    ),
    (
        "charts/beamline/README.md",
        [PYTHON, "scripts/chart_readme.py"],
        [PYTHON, "scripts/chart_readme.py", "--check"],
    ),
    (
        "docs/extensions/built-in/*.md",
        [PYTHON, "scripts/extension_pages.py"],
        [PYTHON, "scripts/extension_pages.py", "--check"],
    ),
    (
        "examples/extensions/{go,node}",
        [PYTHON, "scripts/example_extensions.py"],
        [PYTHON, "scripts/example_extensions.py", "--check"],
    ),
)
"""What is generated, the command that writes it, and the command that fails when it is stale."""


def main() -> int:
    if sys.argv[1:] not in (["--write"], ["--check"]):
        print("usage: python scripts/generated.py --write | --check")
        return 2
    stale = []
    for what, write, check in GENERATORS:
        command = write if sys.argv[1] == "--write" else check
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            stale.append(what)
    for what in stale:
        print(f"{what}: {'could not be written' if sys.argv[1] == '--write' else 'stale, run `make crds`'}")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
