"""Row "size": what 2,000 Extensions and 5,000 RoutingPolicies cost a router, beside a router with one policy.

Two routers, each with NATS, PostgreSQL and steps of its own, on the same core; they take turns, and the one
whose turn it is not has nothing to do. The large one's other policies all have to be looked past (see
:mod:`bench.tables`).
"""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from statistics import median
from typing import Any

import orjson

from beamline_contract.names import SUBJECT_INVOKE
from bench.baseline import BODY
from bench.parts import Parts, Row, cpu_seconds, parts, per_1000, resident_mb, spread
from bench.tables import EXTENSIONS, POLICIES, fill
from bench.world import GUARD, PRE, PROVIDER, RouterProcess, World, router, world

STEPS = (PRE, GUARD, PROVIDER)
IN_FLIGHT = 64
WARM_UP_S = 0.5
GOAL_RATIO, GOAL_MB = 0.95, 150.0
BODY_WITH_MODEL = {**BODY, "model": "gpt-4"}


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    measured: list[dict[str, Any]] = []
    with ExitStack() as open_worlds:
        sides = {}
        for name, filler in (("one policy", None), (f"{POLICIES:,} policies", fill)):
            made = open_worlds.enter_context(parts())
            around = open_worlds.enter_context(world(made, STEPS, fill=filler))
            sides[name] = (made, around, router(made, around))
        for number in range(rounds):
            order = list(sides) if number % 2 == 0 else list(sides)[::-1]
            measured += [{"side": side} | _measure(*sides[side], seconds) for side in order]
    return _rows(measured, list(sides)), {"rounds": measured}


def _measure(made: Parts, around: World, served: RouterProcess, seconds: float) -> dict[str, Any]:
    payload = orjson.dumps(BODY_WITH_MODEL).decode()
    command = (around.nats_url, SUBJECT_INVOKE, IN_FLIGHT // 2, WARM_UP_S, seconds, payload)
    children = [made.module("bench.load", *command, stdout=subprocess.PIPE) for _ in range(2)]
    time.sleep(WARM_UP_S + 0.6)
    cpu, began = cpu_seconds(served.pid), time.monotonic()
    time.sleep(max(0.2, seconds - 0.8))
    spent, lasted = cpu_seconds(served.pid), time.monotonic() - began
    got = [made.figures(child) for child in children]
    rate = sum(one["requests"] / one["seconds"] for one in got)
    return {
        "rate": rate,
        "cpu_per_1000": per_1000((spent or 0.0) - (cpu or 0.0), rate * lasted),
        "resident_mb": resident_mb(served.pid),
        "errors": sum(one["errors"] for one in got),
    }


def _rows(measured: list[dict[str, Any]], sides: list[str]) -> list[Row]:
    one, many = ([entry for entry in measured if entry["side"] == side] for side in sides)
    rates = [large["rate"] / small["rate"] for large, small in zip(many, one, strict=True)]
    cpu = [small["cpu_per_1000"] / large["cpu_per_1000"] for large, small in zip(many, one, strict=True)]
    memory = [entry["resident_mb"] for entry in many]
    errors = sum(entry["errors"] for entry in measured)
    what = f"{POLICIES:,} policies, {EXTENSIONS:,} extensions"
    return [
        Row("one policy, req/s", "", spread([entry["rate"] for entry in one]), None),
        Row(f"{what}, req/s", "", spread([entry["rate"] for entry in many]), None),
        Row("req/s, many / one", f">= {GOAL_RATIO}", spread(rates, ".2f"), median(rates) >= GOAL_RATIO),
        Row("CPU per request, one / many", f">= {GOAL_RATIO}", spread(cpu, ".2f"), median(cpu) >= GOAL_RATIO),
        Row("one policy, resident MB", "", spread([entry["resident_mb"] for entry in one]), None),
        Row(f"{what}, resident MB", f"<= {GOAL_MB:g}", spread(memory), median(memory) <= GOAL_MB),
        Row("error answers", "0", str(errors), errors == 0),
    ]
