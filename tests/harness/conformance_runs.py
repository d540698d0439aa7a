"""Runs of the conformance suite against processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from beamline_cli.local.nats import LocalNats
from beamline_sdk.conformance import Launcher, Report, Target, run_suite

HERE = Path(__file__).parent.parent / "integration" / "conformance"


async def checked(
    nats: LocalNats,
    folder: Path,
    command: tuple[str, ...],
    target: Target,
    env: Mapping[str, str] | None = None,
) -> Report:
    """One run; the process finds this folder and our packages."""
    os.makedirs(folder, exist_ok=True)
    environment = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), **(env or {})}
    launcher = Launcher(command, folder, environment=environment)
    return await run_suite(target, nats_url=nats.url, launcher=launcher)
