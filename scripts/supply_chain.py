"""What the image is made of: ``sbom`` writes it down, ``audit`` asks for known holes.

Both read what uv.lock pins for the extras that the image installs, not what happens to be installed here.
``sbom`` needs no network: names, versions and hashes come from the lock, licences from the metadata of the
installed packages. ``audit`` asks a vulnerability service; where that knows nothing of a package the audit is
no audit (exit code 69). A known hole is exit code 1.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "dist" / "supply-chain"
BIN: Final = Path(sys.executable).parent
UNAVAILABLE: Final = 69
_NETWORK: Final = "`make audit` needs the network, and an index that serves metadata as JSON"


def extras() -> list[str]:
    """The extras that the Dockerfile installs, so that this list is nowhere twice."""
    return re.findall(r"--extra (\w+)", (ROOT / "Dockerfile").read_text())


def requirements() -> str:
    """What uv.lock names for the image, with hashes."""
    command = [str(BIN / "uv"), "export", "--frozen", "--no-dev", "--no-emit-project", "--quiet"]
    wanted = [word for extra in extras() for word in ("--extra", extra)]
    done = subprocess.run([*command, *wanted], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout


def pinned(text: str) -> Iterator[tuple[str, str]]:
    """(name, version) of each requirement, sorted."""
    yield from sorted(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", text, re.MULTILINE))


def licence(name: str) -> str:
    """What a package says about its licence, in one line."""
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return "not installed here"
    if expression := found.get("License-Expression"):
        return str(expression)
    classes = [
        line.rsplit("::", 1)[1].strip() for line in found.get_all("Classifier") or () if "License ::" in line
    ]
    first = str(found.get("License") or "").strip().splitlines()
    return ", ".join(classes) or (first[0] if first else "unknown")


def licences(text: str) -> str:
    """The list as Markdown."""
    rows = "".join(f"| {name} | {version} | {licence(name)} |\n" for name, version in pinned(text))
    return f"# Licences of what the image installs\n\n| Package | Version | Licence |\n|---|---|---|\n{rows}"


def sbom() -> int:
    """Writes requirements.txt, bom.json (CycloneDX) and licences.md into :data:`FOLDER`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = requirements()
    listed = FOLDER / "requirements.txt"
    listed.write_text(text)
    tool = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "requirements",
        str(listed),
        "--pyproject",
        "pyproject.toml",
    ]
    bom = FOLDER / "bom.json"
    options = ["--mc-type", "application", "--output-reproducible", "--output-format", "JSON"]
    done = subprocess.run([*tool, *options, "--output-file", str(bom)], cwd=ROOT, check=False)
    if done.returncode != 0:
        print("the bill of materials was not written: is cyclonedx-bom installed? `make env` installs it")
        return done.returncode
    (FOLDER / "licences.md").write_text(licences(text))
    count = len(json.loads(bom.read_text())["components"])
    print(f"{count} components: {bom.relative_to(ROOT)}, {(FOLDER / 'licences.md').relative_to(ROOT)}")
    return 0


def audit() -> int:
    """Known vulnerabilities of what the lock names."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    listed = FOLDER / "requirements.txt"
    listed.write_text(requirements())
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--disable-pip"]
    options = ["--require-hashes", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    code, said = verdict(done.stdout)
    print(said)
    if code == UNAVAILABLE:
        print(done.stderr, end="", file=sys.stderr)
    return code


def verdict(report: str) -> tuple[int, str]:
    """(exit code, what to say) of pip-audit's report, which is empty where it got no answer."""
    try:
        found = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return UNAVAILABLE, f"no audit: the vulnerability service does not answer. {_NETWORK}"
    holes = [
        f"{entry['name']} {entry['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions'])}"
        for entry in found
        for hole in entry.get("vulns", ())
    ]
    if holes:
        return 1, "\n".join(holes)
    unknown = [entry["name"] for entry in found if "skip_reason" in entry]
    if unknown:
        return (
            UNAVAILABLE,
            f"no audit: {len(unknown)} of {len(found)} packages could not be asked for. {_NETWORK}",
        )
    return 0, f"{len(found)} packages, no known vulnerability"


def main(arguments: list[str]) -> int:
    """Runs one of the two; returns the exit code."""
    verbs = {"sbom": sbom, "audit": audit}
    if len(arguments) != 1 or arguments[0] not in verbs:
        print("usage: python scripts/supply_chain.py sbom | audit")
        return 2
    return verbs[arguments[0]]()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
