"""Row "overload": what a router does at one, two and three times what it can serve, over both doors.

The parts are those of the saturation row: PostgreSQL, nats-server, the cheapest responders, the router on a
core of its own. First the peak is searched for: an open-loop generator at rising rates; the peak is the most
good answers per second that any of them brought. Then each round sends 1, 2 and 3 times the peak, one after
the other, so that whatever else the machine does hits all three. Judged are

- goodput (answers within a second of their intended time of sending) as a share of that at 1x in the same
  round, goal >= 0.9;
- the time from sending to a refusal, goal: median <= 5 ms, measured at the client, all queues included.

Generator, NATS and responders share a core where there are two, so three times the peak is as much their
limit as the router's: ``offered`` and ``unanswered`` in the raw figures say whether a round can be believed.

Over HTTP there is a closed loop, too: clients who send again the moment they have an answer or a refusal, as
load testers do. They offer as much as the router can refuse. Their goodput is compared with that of 64.

``BEAMLINE_MAX_IN_FLIGHT`` is left at its default, so what refuses is the admission control.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import orjson

from bench.parts import Parts, Row, parts, spread
from bench.saturation import STEPS
from bench.world import router, world

DOORS = ("nats", "http")
TIMES = (1, 2, 3)
CROWDS = (64, 256, 1_000)
SEARCH = {
    "nats": (3_000, 5_000, 7_000, 9_000, 12_000),
    "http": (2_000, 3_600, 4_400, 5_200, 6_000, 6_800, 7_600),
}
WARM_UP_S = 2.0
GOAL_SHARE = 0.9
GOAL_REFUSAL_MS = 5.0
PAYLOAD = {
    "nats": {"tenant_id": "acme", "prompt": "x" * 900, "parameters": {}, "context": {}},
    "http": {"model": "bench", "messages": [{"role": "user", "content": "x" * 900}]},
}

Offer = Callable[[float, str], dict[str, Any]]
"""One measurement: a rate, and what it is for."""


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    seconds = max(2.0, seconds)
    measured: list[dict[str, Any]] = []
    rows: list[Row] = []
    with parts() as made, world(made, STEPS) as around:
        addresses = {"nats": around.nats_url, "http": f"127.0.0.1:{router(made, around).port}"}
        for door in DOORS:

            def offer(rate: float, what: str, door: str = door) -> dict[str, Any]:
                found = _offer(made, door, addresses[door], rate, seconds)
                measured.append({"door": door, "what": what, "rate": rate, **found})
                return found

            rows += _door(offer, door, rounds)
        rows += _crowds(made, addresses["http"], rounds, seconds, measured)
    return rows, {"rounds": measured}


def _door(offer: Offer, door: str, rounds: int) -> list[Row]:
    peak = max(float(offer(rate, "search")["goodput"]) for rate in SEARCH[door])
    rows = [Row(f"overload, {door}: peak goodput, req/s", "", f"{peak:.0f}", None)]
    made = [{times: offer(peak * times, f"{times}x") for times in TIMES} for _ in range(rounds)]
    for times in TIMES[1:]:
        found = [one[times] for one in made]
        shares = [float(one[times]["goodput"]) / max(1.0, float(one[1]["goodput"])) for one in made]
        rows.append(
            Row(
                f"overload, {door}, {times}x: goodput / that at 1x",
                f">= {GOAL_SHARE}",
                spread(shares, ".2f"),
                sorted(shares)[len(shares) // 2] >= GOAL_SHARE,
            )
        )
        refusals = [one["refused_ms"] for one in found if one["refused_ms"]]
        if refusals:
            medians = [one["p50"] for one in refusals]
            rows.append(
                Row(
                    f"overload, {door}, {times}x: time to a refusal p50 | p99, ms",
                    f"p50 <= {GOAL_REFUSAL_MS:g}",
                    " | ".join(spread([one[at] for one in refusals], ".1f") for at in ("p50", "p99")),
                    sorted(medians)[len(medians) // 2] <= GOAL_REFUSAL_MS,
                )
            )
    return rows


def _crowds(
    made: Parts, address: str, rounds: int, seconds: float, measured: list[dict[str, Any]]
) -> list[Row]:
    port = address.rpartition(":")[2]
    body = orjson.dumps(PAYLOAD["http"]).decode()
    goodput: dict[int, list[float]] = {crowd: [] for crowd in CROWDS}
    for _ in range(rounds):
        for crowd in CROWDS:
            load = (port, "/v1/chat/completions", crowd, 0, WARM_UP_S, seconds, body)
            found = made.figures(made.module("bench.http_load", *load, stdout=subprocess.PIPE))
            measured.append({"door": "http", "what": f"{crowd} clients", **found})
            goodput[crowd].append(found["requests"] / found["seconds"])
    few, *many = CROWDS
    return [
        Row(
            f"overload, http: goodput of {crowd} clients who come back at once / of {few}",
            "",
            spread([one / base for one, base in zip(goodput[crowd], goodput[few], strict=True)], ".2f"),
            None,
        )
        for crowd in many
    ]


def _offer(made: Parts, door: str, address: str, rate: float, seconds: float) -> dict[str, Any]:
    body = orjson.dumps(PAYLOAD[door]).decode()
    child = made.module(
        "bench.overload_load", door, address, rate, WARM_UP_S, seconds, body, stdout=subprocess.PIPE
    )
    return made.figures(child)
