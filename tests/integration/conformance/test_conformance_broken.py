"""Extensions that break one rule each fail the check that is about it, and no other."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from beamline_cli.local.nats import LocalNats
from beamline_sdk.conformance import CHECKS, Outcome, Report, Target
from harness.conformance_runs import HERE, checked

BROKEN = sorted((HERE / "broken").glob("*.py"))
CHECK_OF = {"queue_group": "queue-group", "correlation": "concurrency"}
AT_ONCE = 6


async def test_a_broken_extension_fails_its_check_and_no_other(
    nats_server: LocalNats, tmp_path: Path
) -> None:
    turns = asyncio.Semaphore(AT_ONCE)  # they mostly wait: one after the other would take minutes

    async def one(script: Path) -> Report:
        target = Target.of(f"beamline.provider.{script.stem}.v1")
        async with turns:
            return await checked(nats_server, tmp_path / script.stem, (sys.executable, str(script)), target)

    scripts = [HERE / "foreign.py", *BROKEN]
    reports = dict(zip([s.stem for s in scripts], await asyncio.gather(*map(one, scripts)), strict=True))
    right = reports.pop("foreign")
    assert right.of(Outcome.PASSED) == tuple(check.id for check in CHECKS), right.to_json()
    found = {name: report.of(Outcome.FAILED) for name, report in reports.items()}
    assert found == {name: (CHECK_OF.get(name, name),) for name in reports}, {
        name: [(r.check.id, r.detail) for r in report.results if r.outcome is Outcome.FAILED]
        for name, report in reports.items()
    }


def test_every_check_has_an_extension_that_fails_it() -> None:
    assert {CHECK_OF.get(path.stem, path.stem) for path in BROKEN} == {check.id for check in CHECKS}
