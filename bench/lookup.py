"""Row "lookup": the router's table, asked while it is swapped.

In one process with 2,000 extensions and 5,000 policies: look-ups of known ids per second beside a bare dict,
the time of single look-ups, and how long the longest pause between two look-ups is while the router's own
refresher reads a table in which everything changed from PostgreSQL and swaps it. The pause is taken in CPU
time of the event loop's thread, which is what the swap costs, and by the clock, where the longest pause of a
quiet second says what the machine's other work costs.
"""

from __future__ import annotations

import asyncio
import random
import time
from statistics import median
from typing import Any

from beamline_cli.local.postgres import LocalPostgres
from beamline_registry.migrate import migrate
from beamline_registry.postgres import PostgresRegistry
from beamline_router.core.snapshot import compile_snapshot
from beamline_router.edges.refresh import Refresher
from beamline_router.edges.telemetry import Telemetry
from bench.parts import Row, parts, spread
from bench.tables import fill, records

LOOKUPS = 1_000_000
SINGLE = 200_000
GOAL_RATE, GOAL_P99_US, GOAL_PAUSE_MS = 1_000_000, 10.0, 1.0


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; ``seconds`` is the length of the quiet measurement of pauses."""
    measured = [_lookups() for _ in range(rounds)]
    with parts() as made:
        postgres = LocalPostgres(made.folder / "data", settings={"fsync": "off"})
        try:
            postgres.start()
            pauses = asyncio.run(_reloads(postgres.url(), rounds, seconds))
        finally:
            postgres.stop()
    return _rows(measured, pauses), {"lookups": measured, "reloads": pauses}


def _lookups() -> dict[str, float]:
    extensions, policies = records()
    snapshot = compile_snapshot(extensions, policies, revision=1, previous=None).snapshot
    bare = dict.fromkeys(record.id for record in extensions)
    ids = random.Random(1).choices([record.id for record in extensions], k=LOOKUPS)
    lookup, get = snapshot.lookup, bare.get
    began = time.perf_counter()
    for extension_id in ids:
        get(extension_id)
    bare_s = time.perf_counter() - began
    began = time.perf_counter()
    for extension_id in ids:
        lookup(extension_id)
    ours_s = time.perf_counter() - began
    clock, took, hits = time.perf_counter_ns, [], 0
    for extension_id in ids[:SINGLE]:
        at = clock()
        found = lookup(extension_id)
        took.append(clock() - at)
        hits += found is not None
    took.sort()
    return {
        "rate": LOOKUPS / ours_s,
        "bare_rate": LOOKUPS / bare_s,
        "p99_us": took[int(SINGLE * 0.99)] / 1000,
        "hits": hits / SINGLE,
    }


async def _reloads(url: str, rounds: int, seconds: float) -> list[dict[str, dict[str, float]]]:
    await migrate(url)
    registry = await PostgresRegistry.connect(url)
    await fill(registry)
    loaded = asyncio.Event()

    async def swapped() -> None:
        loaded.set()

    refresher = Refresher(registry, Telemetry(), draw=random.random, poll_s=3600, on_swap=swapped)
    running = asyncio.ensure_future(refresher.run())
    try:
        await loaded.wait()
        found = []
        for number in range(rounds):
            quiet = await _longest_pause(refresher, seconds=seconds)
            await fill(registry, version=number + 2)
            before = refresher.revision
            refresher.wake()
            during = await _longest_pause(refresher, beyond=before)
            found.append({"quiet": quiet, "reload": during})
        return found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await registry.close()


async def _longest_pause(
    refresher: Refresher, *, seconds: float = 0.0, beyond: int | None = None
) -> dict[str, float]:
    """Looks up on every turn of the loop, until the time is over or the table is beyond a revision."""
    wall = cpu = 0.0
    last, last_cpu = time.perf_counter(), time.thread_time()
    end = last + seconds
    while True:
        await asyncio.sleep(0)
        assert refresher.snapshot is not None
        refresher.snapshot.lookup("size_7")
        now, now_cpu = time.perf_counter(), time.thread_time()
        wall, cpu = max(wall, now - last), max(cpu, now_cpu - last_cpu)
        last, last_cpu = now, now_cpu
        if (refresher.revision > beyond) if beyond is not None else now >= end:
            return {"wall_ms": wall * 1000, "cpu_ms": cpu * 1000}


def _rows(measured: list[dict[str, float]], pauses: list[dict[str, dict[str, float]]]) -> list[Row]:
    rates = [one["rate"] for one in measured]
    p99 = [one["p99_us"] for one in measured]
    hits = [one["hits"] for one in measured]
    busy = [one["reload"]["cpu_ms"] for one in pauses]
    quiet_wall, wall = ([one[when]["wall_ms"] for one in pauses] for when in ("quiet", "reload"))
    pause = "longest pause between two look-ups"
    return [
        Row("bare dict, look-ups/s", "", spread([one["bare_rate"] for one in measured]), None),
        Row("registry look-ups/s", f">= {GOAL_RATE:,}", spread(rates), median(rates) >= GOAL_RATE),
        Row("one look-up and two clock reads, p99, us", f"<= {GOAL_P99_US:g}", spread(p99, ".2f"),
            median(p99) <= GOAL_P99_US),
        Row("hit rate of known ids, %", "100", spread([one * 100 for one in hits], ".1f"), min(hits) == 1.0),
        Row(f"{pause}, 7,000 records reloaded, CPU ms", f"<= {GOAL_PAUSE_MS:g}", spread(busy, ".2f"),
            median(busy) <= GOAL_PAUSE_MS),
        Row(f"{pause}, the same by the clock, ms", "", spread(wall, ".2f"), None),
        Row(f"{pause}, nothing happening, by the clock, ms", "", spread(quiet_wall, ".2f"), None),
    ]  # fmt: skip
