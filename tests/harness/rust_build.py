"""examples/extensions/rust, built once for all runs of the suite.

A cold build takes about two minutes of processor time, so nobody is made to wait for it unasked: without
``BEAMLINE_TEST_RUST=1`` only a cache that an earlier build has left is used. With it a missing toolchain is a
failure. The cache is a ``CARGO_TARGET_DIR`` below the user's cache folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "extensions" / "rust"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beamline" / "cargo-target"
BUILD_SECONDS = 1200
ASKED = "BEAMLINE_TEST_RUST"


def why_not() -> str | None:
    """Why the example is not built here, in a sentence; None where it is."""
    asked = os.environ.get(ASKED) == "1"
    if shutil.which("cargo") is None:
        reason = "cargo not on PATH: install Rust to build examples/extensions/rust"
        if asked:
            pytest.fail(reason)
        return reason
    if not asked and not list(CACHE.glob("release/.fingerprint/async-nats-*")):
        return f"a cold build takes minutes: `make test-rust` ({ASKED}=1) builds it once into {CACHE}"
    return None


def built(*more: str) -> Path:
    """The program; what Cargo.lock pins, and nothing newer. ``more`` are further cargo commands to run."""
    for command in ("build", *more):
        done = subprocess.run(
            ["cargo", command, "--release", "--locked", "--quiet"],
            cwd=FOLDER,
            env={**os.environ, "CARGO_TARGET_DIR": str(CACHE)},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"cargo {command}: {done.stdout}{done.stderr}"
    return CACHE / "release" / "hello-rust"
