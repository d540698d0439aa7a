"""Row "saturation": requests per second of one router process, three and four steps, every feature on.

Real processes (:mod:`.world`), the router with its default settings (metrics, deadline, retry, breaker, trace
context, one log line per request), two load generators. The router has a core for itself where ``taskset``
exists; so has each baseline, when its turn comes:

- **bare loop**: the requests to the steps and nothing else (:mod:`.baseline`). Nobody asks it, nobody gets an
  answer from it.
- **bare door**: the same behind a NATS subscription (:mod:`.bare_door`): the messages that a router moves,
  and no feature. Both are nats-py and orjson on uvloop.

Rounds alternate, so that whatever else the machine does hits all sides.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import orjson

from beamline_contract.names import SUBJECT_INVOKE
from bench.baseline import BODY
from bench.parts import Parts, Row, cpu_seconds, parts, per_1000, spread
from bench.world import GUARD, POST, PRE, PROVIDER, Step, router, world

GENERATORS = 2
WARM_UP_S = 0.5
GOAL_RATIO = 2.5
STEPS = (PRE, GUARD, PROVIDER)
LINES = ((STEPS, (32, 64, 256), 10_000), ((*STEPS, POST), (64, 256), 7_500))
"""Steps, requests in flight, and the goal in requests per second."""
_DOOR = "bench.bare.door"


@dataclass(frozen=True)
class Round:
    """One measurement of one side. ``cpu_per_1000`` is CPU seconds of the measured process."""

    side: str
    steps: int
    in_flight: int
    rate: float
    cpu_per_1000: float | None
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0
    refused: int = 0


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    measured: list[Round] = []
    rows: list[Row] = []
    for steps, flights, goal in LINES:
        with parts() as made, world(made, steps) as around:
            line = _Line(made, around.nats_url, router(made, around).pid, steps, seconds)
            for number in range(rounds):
                for in_flight in flights:
                    sides = [line.loop, line.door, line.router]
                    order = sides if number % 2 == 0 else sides[::-1]
                    line.measured.extend(side(in_flight) for side in order)
        measured += line.measured
        rows += _rows(line.measured, len(steps), flights, goal)
    errors = sum(one.errors for one in measured)
    rows.append(Row("error answers under load", "0", str(errors), errors == 0))
    rows.append(Row("refused for overload", "", str(sum(one.refused for one in measured)), None))
    return rows, {"rounds": [vars(one) for one in measured]}


class _Line:
    """The three sides of one number of steps."""

    def __init__(self, made: Parts, url: str, pid: int, steps: Sequence[Step], seconds: float) -> None:
        self.measured: list[Round] = []
        self._made = made
        self._url = url
        self._pid = pid
        self._subjects = [step.subject for step in steps]
        self._seconds = seconds

    def loop(self, in_flight: int) -> Round:
        """The bare loop."""
        child = self._made.module(
            "bench.baseline",
            *(self._url, in_flight, WARM_UP_S, self._seconds, *self._subjects),
            measured=True,
            stdout=subprocess.PIPE,
        )
        got = self._made.figures(child)
        cpu = per_1000(got["cpu"], got["requests"])
        return Round("loop", len(self._subjects), in_flight, got["requests"] / got["seconds"], cpu)

    def door(self, in_flight: int) -> Round:
        """The bare door, under load."""
        child = self._made.module(
            "bench.bare_door", self._url, _DOOR, *self._subjects, measured=True, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        try:
            return self._loaded("door", _DOOR, child.pid, in_flight)
        finally:
            child.terminate()
            child.wait(15)

    def router(self, in_flight: int) -> Round:
        """The router, under load."""
        return self._loaded("router", SUBJECT_INVOKE, self._pid, in_flight)

    def _loaded(self, side: str, subject: str, pid: int, in_flight: int) -> Round:
        seconds = self._seconds
        asked = (self._url, subject, in_flight // GENERATORS, WARM_UP_S, seconds, orjson.dumps(BODY).decode())
        children = [
            self._made.module("bench.load", *asked, stdout=subprocess.PIPE) for _ in range(GENERATORS)
        ]
        # The generators take a moment to start; CPU time is taken over the middle of their common window.
        time.sleep(WARM_UP_S + 0.6)
        cpu, began = cpu_seconds(pid), time.monotonic()
        time.sleep(max(0.2, seconds - 0.8))
        spent, lasted = cpu_seconds(pid), time.monotonic() - began
        got = [self._made.figures(child) for child in children]
        rate = sum(one["requests"] / one["seconds"] for one in got)
        answered = [
            one for one in got if one["requests"]
        ]  # a generator may have got no turn on a busy machine
        return Round(
            side,
            len(self._subjects),
            in_flight,
            rate,
            None if cpu is None or spent is None else per_1000(spent - cpu, rate * lasted),
            p50_ms=median(one["p50_ms"] for one in answered) if answered else None,
            p99_ms=max((one["p99_ms"] for one in answered), default=None),
            errors=sum(one["errors"] for one in got),
            refused=sum(one["refused"] for one in got),
        )


def _rows(measured: list[Round], steps: int, flights: Sequence[int], goal: int) -> list[Row]:
    rows = []
    best = 0.0
    for in_flight in flights:
        sides = {
            side: [one for one in measured if one.side == side and one.in_flight == in_flight]
            for side in ("loop", "door", "router")
        }
        rates = {side: [one.rate for one in rounds] for side, rounds in sides.items()}
        cpu = {side: [one.cpu_per_1000 for one in rounds] for side, rounds in sides.items()}
        best = max(best, median(rates["router"]))
        what = f"{steps} steps, {in_flight} in flight"
        rows.append(
            Row(f"{what}: req/s, loop | door", "", f"{spread(rates['loop'])} | {spread(rates['door'])}", None)
        )
        rows.append(Row(f"{what}: req/s, router", "", spread(rates["router"]), None))
        for side in ("loop", "door"):
            pairs = zip(rates["router"], rates[side], strict=True)
            ratios = [mine / theirs for mine, theirs in pairs if theirs]
            met = median(ratios) >= GOAL_RATIO if ratios else None
            rows.append(Row(f"{what}: router / bare {side}", f">= {GOAL_RATIO}", spread(ratios, ".2f"), met))
        spent = " | ".join(f"{side} {spread(values, '.3f')}" for side, values in cpu.items())
        rows.append(Row(f"{what}: CPU s per 1,000", "", spent, None))
    rows.append(
        Row(f"{steps} steps: router, req/s, best median", f">= {goal:,}", f"{best:,.0f}", best >= goal)
    )
    return rows
