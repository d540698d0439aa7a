"""Row "outage": calls that a provider gets per request while it fails every one of them.

Counted at the provider, from the first failure on, at a fixed rate of requests. Once with the defaults, where
the breaker opens and a request gets the one trial that is left when nobody else can be asked; and once with a
breaker that never opens, so that what is left is the retry budget.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import orjson

from beamline_contract.names import SUBJECT_INVOKE
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry
from bench.baseline import BODY
from bench.parts import Row, parts, spread
from bench.world import PROVIDER, extension_record, router, world

FAILING = replace(PROVIDER, reply={"error": {"code": "UNAVAILABLE", "message": "down", "retryable": True}})
RATE = 200
GOAL = 1.2
NEVER_OPENS = {"concurrency": 10_000, "circuitBreaker": {"failureThreshold": 1000, "minFailureRatio": 1.0}}
SIDES: Mapping[str, Mapping[str, Any] | None] = {
    "with its breaker": None,
    "with a breaker that stays closed": NEVER_OPENS,
}


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """One outage of ``5 x seconds`` per round and side."""
    measured = {side: [_outage(spec, seconds * 5) for _ in range(rounds)] for side, spec in SIDES.items()}
    rows = []
    for side, found in measured.items():
        values = [one["calls"] / one["requests"] for one in found]
        rows.append(
            Row(
                f"calls per request in a total outage, {side}",
                f"<= {GOAL}",
                spread(values, ".2f"),
                median(values) <= GOAL,
            )
        )
    return rows, {"rounds": measured}


def _outage(spec: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
    async def fill(registry: PostgresRegistry) -> None:
        if spec is not None:
            epoch = await registry.acquire_epoch("bench")
            record = extension_record(FAILING, generation=2, spec=dict(spec))
            await registry.write([Upsert(record, "bench")], epoch=epoch)

    with parts() as made, world(made, (FAILING,), fill=fill) as around:
        router(made, around)
        payload = orjson.dumps(BODY).decode()
        load = made.module(
            "bench.paced", around.nats_url, RATE, 0, seconds, payload, SUBJECT_INVOKE, stdout=subprocess.PIPE
        )
        got = made.figures(load)
        (provider,) = (child for child in made.children if "bench.responder" in child.args)
        provider.terminate()
        answered = made.figures(provider)["answered"]
    return {**got, "requests": got["errors"] + got["requests"], "calls": answered}
