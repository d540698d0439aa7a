"""Open-loop load over NATS at a fixed rate, a process of its own.

``python -m bench.paced URL RATE WARM_UP_S SECONDS PAYLOAD SUBJECT...`` prints one JSON line.

A sample asks the subjects one after the other, so that several of them are a bare chain of request-replies.
Its latency counts from the time at which it should have begun, so that a stall is not hidden; a sample
without its last answer at the end counts at the age that it has reached. What is due is sent once a
millisecond, which adds half of one to every latency of a rate above 1,000, whatever is measured.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import orjson

from bench.wire import Wire

TICK_S = 0.001
REFUSED = b'"RESOURCE_EXHAUSTED"'


async def drive(
    url: str, subjects: list[bytes], payload: bytes, *, rate: float, warm_up: float, seconds: float
) -> dict[str, object]:
    inbox = b"_INBOX.paced%d" % os.getpid()
    due: dict[int, float] = {}
    took: list[float] = []
    refused: list[float] = []
    errors = 0
    since = float("inf")

    def answered(to: bytes, _reply: bytes, body: bytes) -> None:
        nonlocal errors
        number, step = map(int, to.split(b".")[2:])
        if step + 1 < len(subjects):
            ask(number, step + 1)
            return
        began = due.pop(number)
        if began < since:
            return
        if body[:8] == b'{"error"':
            if REFUSED in body:
                refused.append(time.perf_counter() - began)
            else:
                errors += 1
            return
        took.append(time.perf_counter() - began)

    def ask(number: int, step: int) -> None:
        wire.publish(subjects[step], b"%b.%d.%d" % (inbox, number, step), payload)

    wire = await Wire.connect(url, answered)
    wire.subscribe(inbox.decode() + ".*.*")
    began = time.perf_counter()
    since, until = began + warm_up, began + warm_up + seconds
    number = 0
    while (now := time.perf_counter()) < until:
        while (at := began + number / rate) <= now:
            due[number] = at
            ask(number, 0)
            number += 1
        wire.flush()
        # Shorter sleeps would be none: the generator would spin on the core that NATS and the steps need.
        await asyncio.sleep(max(TICK_S, began + number / rate - time.perf_counter()))
    await asyncio.sleep(0.2)
    now = time.perf_counter()
    unanswered = [now - at for at in due.values() if at >= since]
    wire.close()
    return {
        "requests": len(took),
        "seconds": seconds,
        "errors": errors,
        "refused": len(refused),
        "refused_p99_ms": _at(refused, 0.99),
        "unanswered": len(unanswered),
        "p50_ms": _at(took + unanswered, 0.5),
        "p99_ms": _at(took + unanswered, 0.99),
    }


def _at(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 if ordered else None


if __name__ == "__main__":
    import uvloop

    url, rate, warm_up, seconds, payload, *subjects = sys.argv[1:]
    figures = uvloop.run(
        drive(
            url,
            [subject.encode() for subject in subjects],
            payload.encode(),
            rate=float(rate),
            warm_up=float(warm_up),
            seconds=float(seconds),
        )
    )
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")
