"""Row "soak": memory of three routers under steady load, over a full table that keeps changing.

5,000 policies and 2,000 extensions; ``BENCH_SOAK_RATE`` requests per second over NATS (300 by default), one
policy written each second, so that reloads are part of it. ``BENCH_SOAK_S`` is how long that lasts: a minute
by default, 3600 for the figure that docs/performance.md gives. Flat means that the median of the last quarter
is no more than a twentieth above that of the second: the first one is the warm-up of pools and caches.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from statistics import median
from typing import Any

import nats
import orjson

from beamline_contract.names import SUBJECT_INVOKE, SUBJECT_REGISTRY_CHANGED
from beamline_contract.reports import Changed
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry
from bench.baseline import BODY
from bench.parts import Parts, Row, cpu_seconds, parts, resident_mb, spread
from bench.tables import EXTENSIONS, POLICIES, fill, policy
from bench.world import GUARD, PRE, PROVIDER, World, router, world

STEPS = (PRE, GUARD, PROVIDER)
ROUTERS = 3
SEGMENTS = 40
"""Samples of memory, each after a stretch of load."""
GOAL_MB, GOAL_GROWTH = 150.0, 1.05


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """One stretch of load, whatever the rounds; returns the lines of the table and the raw figures."""
    lasts = float(os.environ.get("BENCH_SOAK_S", "60"))
    rate = int(os.environ.get("BENCH_SOAK_RATE", "300"))
    with parts(pin=False) as made, world(made, STEPS, fill=fill) as around:
        pids = [router(made, around, name=f"router-{number}").pid for number in range(ROUTERS)]
        over = threading.Event()
        writer = threading.Thread(target=lambda: asyncio.run(_keep_changing(around, over)))
        writer.start()
        try:
            samples = [_segment(made, around, pids, rate, lasts / SEGMENTS) for _ in range(SEGMENTS)]
        finally:
            over.set()
            writer.join()
    return _rows(samples, lasts), {"seconds": lasts, "rate": rate, "samples": samples}


async def _keep_changing(around: World, over: threading.Event) -> None:
    """Writes another version of the next policy each second, and tells the routers."""
    registry = await PostgresRegistry.connect(around.database_url)
    nc = await nats.connect(around.nats_url)
    try:
        epoch = await registry.acquire_epoch("bench-soak")
        version = 1
        while not over.is_set():
            version += 1
            record = policy(version % POLICIES, version)
            [result] = await registry.write([Upsert(record, "bench")], epoch=epoch)
            hint = Changed(revision=result.revision).model_dump_json().encode()
            await nc.publish(SUBJECT_REGISTRY_CHANGED, hint)
            await asyncio.sleep(1)
    finally:
        await nc.close()
        await registry.close()


def _segment(made: Parts, around: World, pids: list[int], rate: int, seconds: float) -> dict[str, Any]:
    payload = orjson.dumps(BODY).decode()
    before = [cpu_seconds(pid) or 0.0 for pid in pids]
    child = made.module(
        "bench.paced", around.nats_url, rate, 0.2, seconds, payload, SUBJECT_INVOKE, stdout=subprocess.PIPE
    )
    got = made.figures(child)
    cpu = sum(cpu_seconds(pid) or 0.0 for pid in pids) - sum(before)
    return {"at": time.time(), "cpu": cpu, "resident_mb": [resident_mb(pid) for pid in pids]} | got


def _rows(samples: list[dict[str, Any]], lasts: float) -> list[Row]:
    quarter = SEGMENTS // 4
    growth = []
    for number in range(ROUTERS):
        memory = [sample["resident_mb"][number] for sample in samples]
        growth.append(median(memory[-quarter:]) / median(memory[quarter : 2 * quarter]))
    last = samples[-1]["resident_mb"]
    lost = sum(sample["errors"] + sample["unanswered"] for sample in samples)
    what = f"{POLICIES:,} policies, {EXTENSIONS:,} extensions, {lasts:g} s of load: resident MB of a router"
    return [
        Row(what, f"<= {GOAL_MB:g}", spread(last), max(last) <= GOAL_MB),
        Row(
            "last quarter / second", f"<= {GOAL_GROWTH:g}", spread(growth, ".3f"), max(growth) <= GOAL_GROWTH
        ),
        Row("requests answered", "", f"{sum(sample['requests'] for sample in samples):,}", None),
        Row("errors and unanswered", "0", str(lost), lost == 0),
    ]
