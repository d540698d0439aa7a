"""Creates .venv from the lock file, with nothing but a Python to start from. Run by `make env`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 -- this file runs before anything has checked the version
        found = sys.version.split()[0]
        print(f"Beamline needs Python 3.11 or newer, this is {found}: try `make PYTHON=python3.11`")
        return 78
    if not (VENV / "bin" / "python").exists():
        print(f"creating {VENV.name} with Python {sys.version.split()[0]}", flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False)
        if made.returncode != 0:
            print(
                "the venv module of this Python does not work: install it (Debian: python3-venv), try again"
            )
            return 78
    uv = VENV / "bin" / "uv"
    if not uv.exists():
        found = shutil.which("uv")
        if found is None:
            quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv>=0.8"]
            subprocess.run([str(VENV / "bin" / "python"), *quiet], check=True)
        else:
            uv = Path(found)
    print("installing what uv.lock names", flush=True)
    sync = [str(uv), "sync", "--frozen", "--all-extras", "--quiet", "--python", str(VENV / "bin" / "python")]
    synced = subprocess.run(sync, cwd=ROOT, check=False)
    if synced.returncode == 0:
        (VENV / ".synced").touch()
    return synced.returncode


if __name__ == "__main__":
    raise SystemExit(main())
