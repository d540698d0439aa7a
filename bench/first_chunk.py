"""Row "first_chunk": how much later the first streamed text comes through the product than from the API.

The way through: the router's HTTP door, NATS, the `openai` provider as it ships, the upstream. The other way:
the upstream called directly. Both at the same few requests a second, from the same client, in turns.
"""

from __future__ import annotations

import subprocess
from statistics import median
from typing import Any

import orjson

from bench.chat import CHAT, PATH
from bench.parts import Parts, Row, parts, spread
from bench.provider_process import provider, upstream
from bench.world import Step, extension_record, policy_record, router, world

STEP = Step("openai", "provider", "beamline.provider.openai.v1", {})
CONFIG = {"model": "bench", "models": ["*"]}
RATE, CONNECTIONS, WARM_UP_S = 10, 16, 1.0
GOAL_MS = 2.0


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""

    async def fill(registry: Any) -> None:
        from beamline_registry.port import Upsert

        epoch = await registry.acquire_epoch("bench")
        records = [extension_record(STEP, config=CONFIG), policy_record([STEP])]
        await registry.write([Upsert(record, "bench") for record in records], epoch=epoch)

    measured: list[dict[str, float]] = []
    with parts(pin=False) as made, world(made, (), fill=fill) as around:
        port = upstream(made)
        provider(made, "openai", around.nats_url, port, subject=STEP.subject)
        served = router(made, around)
        ports = {"router": served.port, "upstream": int(port)}
        for number in range(rounds):
            order = list(ports) if number % 2 == 0 else list(ports)[::-1]
            measured.append({side: _first_ms(made, ports[side], max(seconds, 3.0)) for side in order})
    direct, through = ([one[side] for one in measured] for side in ("upstream", "router"))
    added = [one - other for one, other in zip(through, direct, strict=True)]
    rows = [
        Row("first chunk, upstream directly, p50, ms", "", spread(direct, ".2f"), None),
        Row("first chunk through router and provider, p50, ms", "", spread(through, ".2f"), None),
        Row("first chunk, added, p50, ms", f"<= {GOAL_MS:g}", spread(added, ".2f"), median(added) <= GOAL_MS),
    ]
    return rows, {"rounds": measured}


def _first_ms(made: Parts, port: int, seconds: float) -> float:
    body = orjson.dumps({**CHAT, "stream": True}).decode()
    child = made.module(
        "bench.http_load", port, PATH, CONNECTIONS, RATE, WARM_UP_S, seconds, body, stdout=subprocess.PIPE
    )
    got = made.figures(child)
    if got["errors"] or got["first_p50_ms"] is None:
        raise RuntimeError(f"not every answer was a stream: {got}")
    return float(got["first_p50_ms"])
