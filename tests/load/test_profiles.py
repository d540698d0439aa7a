"""The four profiles of load before a release: steady, burst, ramp and soak. ``make test-load`` runs them, and
nothing else does. What was measured is printed; what is asserted holds on a busy machine too.

``BEAMLINE_LOAD_SCALE=10`` sends ten times as much for ten times as long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import psutil
import pytest

from harness.fleet import Fleet, fleet

AVAILABILITY = 0.995
"""Share of requests that must be answered."""
PROFILES: dict[str, list[tuple[float, float]]] = {
    "steady": [(8.0, 40.0)],
    "burst": [(3.0, 20.0), (1.0, 150.0), (3.0, 20.0)],
    "ramp": [(2.0, 10.0), (2.0, 30.0), (2.0, 60.0), (2.0, 90.0)],
}


@pytest.fixture
async def running() -> AsyncIterator[Fleet]:
    async with fleet() as found:
        yield found


@pytest.mark.parametrize("name", PROFILES)
async def test_a_profile_is_answered(running: Fleet, name: str) -> None:
    found = await running.send(PROFILES[name])
    print(f"{name}: {found}")
    assert found.availability >= AVAILABILITY, found
    assert set(found.providers) == {"main"}, "the fallback is for failures"


async def test_a_soak_neither_loses_requests_nor_grows(running: Fleet) -> None:
    processes = [psutil.Process(process.pid) for process in running.world.processes]
    warm = await running.send([(5.0, 40.0)])
    before = [process.memory_info().rss for process in processes]
    found = await running.send([(20.0, 40.0)])
    after = [process.memory_info().rss for process in processes]
    grown = [(there - here) / 2**20 for here, there in zip(before, after, strict=True)]
    print(f"soak: {found}; memory grew by {', '.join(f'{one:.1f}' for one in grown)} MiB")
    assert min(warm.availability, found.availability) >= AVAILABILITY, found
    assert max(grown) < 30, "MiB in one process"
