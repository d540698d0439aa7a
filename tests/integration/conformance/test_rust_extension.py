"""The Rust example is built with the official client, passes its own tests and the conformance suite."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from beamline_cli.local.nats import LocalNats
from beamline_sdk.conformance import CHECKS, Outcome, Target
from harness.conformance_runs import checked
from harness.rust_build import BUILD_SECONDS, built, why_not


@pytest.mark.xdist_group("toolchains")
@pytest.mark.timeout(BUILD_SECONDS + 120)
async def test_the_rust_example_passes_its_tests_and_every_check(
    nats_server: LocalNats, tmp_path: Path
) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    program = await asyncio.to_thread(built, "test")
    target = Target.of("beamline.provider.hello_rust.v1")
    report = await checked(nats_server, tmp_path, (str(program),), target)
    assert report.of(Outcome.PASSED) == tuple(check.id for check in CHECKS), report.to_json()
