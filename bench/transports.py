"""Row "transports": the router's two NATS transports against bare nats-py, nothing else around them.

Three request-replies one after the other, with what the router sends along (headers, a timeout each), on one
core; plain, fast and the bare loop of the saturation row take turns. Requests per second depend on who else
uses the machine; the CPU seconds per 1,000 requests of the measured process hardly do, so the goal is set on
them: the transport that is chosen by default must need less.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.parts import Parts, Row, parts, per_1000, spread
from bench.saturation import STEPS, WARM_UP_S
from bench.world import world

IN_FLIGHT = 256
SIDES = ("bare", "plain", "fast")


@dataclass(frozen=True)
class Round:
    """One measurement of one side. ``cpu_per_1000`` is CPU seconds per 1,000 times three requests."""

    side: str
    rate: float
    cpu_per_1000: float


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    measured: list[Round] = []
    with parts() as made, world(made, STEPS) as around:
        for number in range(rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            measured.extend(_measure(made, around.nats_url, side, seconds) for side in order)
    return _rows(measured), {"rounds": [vars(one) for one in measured]}


def _measure(made: Parts, url: str, side: str, seconds: float) -> Round:
    subjects = [step.subject for step in STEPS]
    command = ["bench.baseline"] if side == "bare" else ["bench.transport_loop", side]
    child = made.module(*command, url, IN_FLIGHT, WARM_UP_S, seconds, *subjects, measured=True, stdout=-1)
    got = made.figures(child)
    cpu = per_1000(got["cpu"], got["requests"])
    assert cpu is not None
    return Round(side, got["requests"] / got["seconds"], cpu)


def _rows(measured: list[Round]) -> list[Row]:
    cpu = {side: [one.cpu_per_1000 for one in measured if one.side == side] for side in SIDES}
    rates = {side: [one.rate for one in measured if one.side == side] for side in SIDES}
    rows = []
    for side in SIDES:
        what = f"3 requests, {IN_FLIGHT} in flight, {side}"
        rows.append(Row(f"{what}: per second", "", spread(rates[side]), None))
        rows.append(Row(f"{what}: CPU s per 1,000", "", spread(cpu[side], ".3f"), None))
    saved = [plain / fast for plain, fast in zip(cpu["plain"], cpu["fast"], strict=True)]
    rows.append(Row("transport: CPU of plain / fast", "> 1", spread(saved, ".2f"), median(saved) > 1))
    against = [bare / fast for bare, fast in zip(cpu["bare"], cpu["fast"], strict=True)]
    rows.append(Row("transport: CPU of bare / fast", "> 1", spread(against, ".2f"), median(against) > 1))
    return rows
