"""What the wheel holds, and that it works where there is no repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("crds", "registry", "operator", "router", "providers", "admin", "cli")


def run(*command: str, cwd: Path) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    uv = Path(sys.executable).with_name("uv")
    found = str(uv) if uv.exists() else shutil.which("uv")
    assert found is not None, "uv is a development dependency: `make env` installs it"
    folder = tmp_path_factory.mktemp("wheel")
    run(found, "build", "--wheel", "--quiet", "--out-dir", str(folder), str(ROOT), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    packages = [package for room in ROOMS for package in (ROOT / room).glob("beamline_*") if package.is_dir()]
    assert {f"{package.name}/py.typed" for package in packages} <= held
    wanted = {
        str(path.relative_to(package.parent))
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= held
    suffixes = {Path(name).suffix for name in wanted}
    assert {".py", ".sql", ".j2", ".yaml"} <= suffixes, "migrations, templates and manifests are among them"


def test_an_installed_wheel_makes_an_extension_prints_the_crds_and_serves_without_the_repository(
    wheel: Path, tmp_path: Path
) -> None:
    """Dependencies come from this environment's folder, whose own link to the repository is not followed."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = str(home / "bin" / "python")
    (packages,) = (home / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    beamline = (python, "-m", "beamline_cli")
    where = run(python, "-c", "import beamline_cli, beamline_sdk; print(beamline_cli.__file__)", cwd=tmp_path)
    assert where.startswith(str(packages))

    run(*beamline, "new", "tone-guard", "--kind", "validator", cwd=tmp_path)
    run(*beamline, "validate", "tone-guard/manifest.yaml", cwd=tmp_path)
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path / "tone-guard")
    assert "kind: CustomResourceDefinition" in run(*beamline, "crds", cwd=tmp_path)
    assert "pii_guard" in run(*beamline, "extension", "list", cwd=tmp_path)
    migrations = "from beamline_registry.migrate import packaged; print(len(packaged()))"
    assert int(run(python, "-c", migrations, cwd=tmp_path)) > 0
