"""Open-loop load for the overload row: a fixed rate, whatever comes back. A process of its own.

``python -m bench.overload_load DOOR ADDRESS RATE WARM_UP_S SECONDS PAYLOAD`` prints one JSON line. DOOR is
``nats`` (ADDRESS its URL) or ``http`` (ADDRESS host:port; connections are kept, and as many are opened as the
rate needs). Latency counts from the *intended* time of sending, so a stall is not hidden. The raw times of
refusals are what "refused within 5 ms" is judged by, those of answers are goodput where they came within
``GOOD_S``.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time

import orjson

from bench.wire import Wire

GOOD_S = 1.0
"""An answer that comes later than this is no good any more."""
TICK_S = 0.001
MAX_CONNECTIONS = 2_000
SUBJECT = b"beamline.router.v1.invoke"


class Tally:
    """What came back, by intended time of sending."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin, self.end = begin, end
        self.sent = 0
        self.good: list[float] = []
        self.late = 0
        self.refused: list[float] = []
        self.failed = 0

    def inside(self, intended: float) -> bool:
        return self.begin <= intended < self.end

    def note(self, intended: float, kind: str) -> None:
        if not self.inside(intended):
            return
        took = time.perf_counter() - intended
        if kind == "refused":
            self.refused.append(took)
        elif kind != "good":
            self.failed += 1
        elif took <= GOOD_S:
            self.good.append(took)
        else:
            self.late += 1

    def figures(self) -> dict[str, object]:
        seconds = self.end - self.begin
        answered = len(self.good) + self.late + len(self.refused) + self.failed
        return {
            "offered": self.sent / seconds,
            "goodput": len(self.good) / seconds,
            "late": self.late,
            "failed": self.failed,
            "unanswered": self.sent - answered,
            "refused": len(self.refused),
            "good_ms": _spread(self.good),
            "refused_ms": _spread(self.refused),
        }


def _spread(took: list[float]) -> dict[str, float] | None:
    took.sort()
    at = lambda share: took[min(len(took) - 1, int(len(took) * share))] * 1000  # noqa: E731
    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99)} if took else None


async def pace(rate: float, until: float, send: object) -> None:
    """Calls ``send(intended)`` at its times; sends late what is late, never less."""
    began, number = time.perf_counter(), 0
    while (now := time.perf_counter()) < until:
        due = int((now - began) * rate)
        while number < due:
            send(began + number / rate)  # type: ignore[operator]
            number += 1
        await asyncio.sleep(TICK_S)


async def over_nats(url: str, rate: float, warm_up: float, seconds: float, payload: bytes) -> Tally:
    begin = time.perf_counter() + warm_up
    tally = Tally(begin, begin + seconds)
    inbox = b"_INBOX.over%d" % os.getpid()
    waiting: dict[bytes, float] = {}

    def answered(to: bytes, _reply: bytes, body: bytes) -> None:
        intended = waiting.pop(to.rpartition(b".")[2], None)
        if intended is not None:
            refused = b'"RESOURCE_EXHAUSTED"' in body[:200]
            tally.note(intended, "refused" if refused else "failed" if body[:8] == b'{"error"' else "good")

    wire = await Wire.connect(url, answered)
    wire.subscribe(inbox.decode() + ".*")
    number = 0

    def send(intended: float) -> None:
        nonlocal number
        number += 1
        name = b"%d" % number
        waiting[name] = intended
        tally.sent += tally.inside(intended)
        wire.publish(SUBJECT, inbox + b"." + name, payload)
        if number % 16 == 0:
            wire.flush()

    async def flushing() -> None:
        while True:
            wire.flush()
            await asyncio.sleep(TICK_S)

    flusher = asyncio.ensure_future(flushing())
    await pace(rate, tally.end, send)
    await asyncio.sleep(GOOD_S + 0.5)
    flusher.cancel()
    wire.close()
    return tally


class Connection(asyncio.Protocol):
    """One request at a time over one kept connection."""

    def __init__(self, pool: list[Connection], tally: Tally) -> None:
        self.pool, self.tally = pool, tally
        self.transport: asyncio.Transport | None = None
        self.intended: float | None = None
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, intended: float, request: bytes) -> None:
        assert self.transport is not None
        self.intended = intended
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        status, self.buffer = head[9:12], b""
        if self.intended is not None:
            self.tally.note(self.intended, {b"200": "good", b"429": "refused"}.get(status, "failed"))
            self.intended = None
        self.pool.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.intended is not None:
            self.tally.note(self.intended, "failed")
        if self in self.pool:
            self.pool.remove(self)


async def over_http(address: str, rate: float, warm_up: float, seconds: float, payload: bytes) -> Tally:
    host, _, port = address.partition(":")
    begin = time.perf_counter() + warm_up
    tally = Tally(begin, begin + seconds)
    pool: list[Connection] = []
    opened = 0
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(payload), payload)
    )
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def open_and_send(intended: float) -> None:
        try:
            _, made = await loop.create_connection(lambda: Connection(pool, tally), host, int(port))
        except OSError:
            tally.note(intended, "failed")
            return
        made.send(intended, request)

    def send(intended: float) -> None:
        nonlocal opened
        tally.sent += tally.inside(intended)
        if pool:
            pool.pop().send(intended, request)
        elif opened < MAX_CONNECTIONS:
            opened += 1
            task = loop.create_task(open_and_send(intended))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        # else: every connection waits for its answer; counted as unanswered

    await pace(rate, tally.end, send)
    await asyncio.sleep(GOOD_S + 0.5)
    return tally


def main() -> None:
    import uvloop

    door, address, rate, warm_up, seconds, payload = sys.argv[1:7]
    gc.disable()
    drive = over_nats if door == "nats" else over_http
    tally = uvloop.run(drive(address, float(rate), float(warm_up), float(seconds), payload.encode()))
    sys.stdout.write(orjson.dumps(tally.figures()).decode() + "\n")


if __name__ == "__main__":
    main()
