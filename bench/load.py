"""Closed-loop load over NATS: keeps N requests in flight and counts answers. A process of its own; run
several. ``requests`` are answers without an error; refusals of an overloaded router are counted apart.

``python -m bench.load URL SUBJECT IN_FLIGHT WARM_UP_S SECONDS PAYLOAD`` prints one JSON line.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import orjson

from bench.wire import Wire


async def drive(
    url: str, subject: bytes, payload: bytes, *, in_flight: int, warm_up: float, seconds: float
) -> None:
    inbox = b"_INBOX.bench%d" % os.getpid()
    sent = [0.0] * in_flight
    took: list[float] = []
    errors = refused = 0
    measuring = False

    def ask(slot: int) -> None:
        sent[slot] = time.perf_counter()
        wire.publish(subject, b"%b.%d" % (inbox, slot), payload)

    def answered(to: bytes, _reply: bytes, body: bytes) -> None:
        nonlocal errors, refused
        slot = int(to.rpartition(b".")[2])
        if measuring:
            if body[:8] != b'{"error"':
                took.append(time.perf_counter() - sent[slot])
            elif b'"RESOURCE_EXHAUSTED"' in body[:200]:
                refused += 1
            else:
                errors += 1
        ask(slot)

    wire = await Wire.connect(url, answered)
    wire.subscribe(inbox.decode() + ".*")
    for slot in range(in_flight):
        ask(slot)
    wire.flush()
    await asyncio.sleep(warm_up)
    measuring, began = True, time.perf_counter()
    await asyncio.sleep(seconds)
    measuring, lasted = False, time.perf_counter() - began
    wire.close()
    took.sort()

    def at(share: float) -> float | None:
        return took[min(len(took) - 1, int(len(took) * share))] * 1000 if took else None

    figures = {
        "requests": len(took),
        "seconds": lasted,
        "errors": errors,
        "refused": refused,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
    }
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")


if __name__ == "__main__":
    import uvloop

    url, subject, in_flight, warm_up, seconds, payload = sys.argv[1:7]
    load = drive(
        url,
        subject.encode(),
        payload.encode(),
        in_flight=int(in_flight),
        warm_up=float(warm_up),
        seconds=float(seconds),
    )
    uvloop.run(load)
