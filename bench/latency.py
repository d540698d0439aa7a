"""Row "latency": what the router adds to a request at half of its saturation.

First a closed loop finds the rate of saturation; then an open loop at half of that rate goes through the
router (pre, validator, provider), and another at the same rate asks the same three steps one after the other,
without a router. The difference is what the router adds: its own work, and one more pass through NATS.
"""

from __future__ import annotations

import subprocess
from statistics import median
from typing import Any

import orjson

from beamline_contract.names import SUBJECT_INVOKE
from bench.baseline import BODY
from bench.parts import Parts, Row, parts, spread
from bench.world import GUARD, PRE, PROVIDER, World, router, world

STEPS = (PRE, GUARD, PROVIDER)
IN_FLIGHT = 64
WARM_UP_S = 0.5
GOAL_P50_MS, GOAL_P99_MS = 1.0, 5.0


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    measured = []
    with parts() as made, world(made, STEPS) as around:
        router(made, around)
        for number in range(rounds):
            rate = round(_saturation(made, around, seconds) / 2)
            sides = {"router": [SUBJECT_INVOKE], "bare": [step.subject for step in STEPS]}
            order = list(sides) if number % 2 == 0 else list(sides)[::-1]
            measured.append(
                {"rate": rate} | {side: _paced(made, around, rate, seconds, sides[side]) for side in order}
            )
    return _rows(measured), {"rounds": measured}


def _saturation(made: Parts, around: World, seconds: float) -> float:
    payload = orjson.dumps(BODY).decode()
    child = made.module(
        "bench.load", around.nats_url, SUBJECT_INVOKE, IN_FLIGHT, WARM_UP_S, seconds, payload,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    got = made.figures(child)
    return float(got["requests"] / got["seconds"])


def _paced(made: Parts, around: World, rate: int, seconds: float, subjects: list[str]) -> dict[str, Any]:
    payload = orjson.dumps(BODY).decode()
    child = made.module(
        "bench.paced", around.nats_url, rate, WARM_UP_S, seconds, payload, *subjects, stdout=subprocess.PIPE
    )
    return made.figures(child)


def _rows(measured: list[dict[str, Any]]) -> list[Row]:
    rows = [Row("half of saturation, req/s", "", spread([one["rate"] for one in measured]), None)]
    for which, goal in (("p50", GOAL_P50_MS), ("p99", GOAL_P99_MS)):
        mine, bare = ([one[side][f"{which}_ms"] for one in measured] for side in ("router", "bare"))
        added = [with_router - without for with_router, without in zip(mine, bare, strict=True)]
        rows += [
            Row(f"three bare request-replies, {which}, ms", "", spread(bare, ".2f"), None),
            Row(f"the same through the router, {which}, ms", "", spread(mine, ".2f"), None),
            Row(f"the router adds, {which}, ms", f"<= {goal:g}", spread(added, ".2f"), median(added) <= goal),
        ]
    lost = sum(
        one[side]["errors"] + one[side]["unanswered"] for one in measured for side in ("router", "bare")
    )
    rows.append(Row("errors and unanswered at half of saturation", "0", str(lost), lost == 0))
    return rows
