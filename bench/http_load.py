"""HTTP/1.1 load on loopback, a process of its own: POSTs one body over and over on keep-alive connections.

``python -m bench.http_load PORTS PATH CONNECTIONS RATE WARM_UP_S SECONDS BODY [HEADER..]`` prints JSON. PORTS
are separated by commas and share the connections.

RATE 0 is a closed loop on all connections. Above 0 it is an open loop: send times are fixed in advance at
even spacing, a request waits for a free connection if it must, and its latency counts from the time at which
it should have been sent, so that a stall is not hidden. Requests without an answer at the end count at the
age that they have reached. With a body that holds ``"stream":true``, ``first`` is the time to the first event
that carries text. ``requests`` are answers with status 200; 429 is counted as ``refused``, every other one as
an error.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import cast

import orjson

_HEAD_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One keep-alive connection: at most one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._due = 0.0
        self._first: float | None = None
        self._status = b""
        self._left: int | None = None
        self._chunked = False
        self._transport: asyncio.Transport | None = None
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self._load.lost += 1

    def send(self, due: float) -> None:
        assert self._transport is not None
        self.busy, self._due, self._first, self._status = True, due, None, b""
        self._transport.write(self._load.request)

    def age(self, now: float) -> float:
        return now - self._due

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._status and not self._read_head():
            return
        if self._first is None and (b'"content":"' in data or not self._chunked):
            self._first = time.perf_counter()
        if self._chunked:
            if not self._buffer.endswith(b"0\r\n\r\n"):
                return
        elif self._left is not None and len(self._buffer) < self._left:
            return
        self._buffer = b""
        self.busy = False
        self._load.answered(self, self._due, self._first, status=self._status)

    def _read_head(self) -> bool:
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        self._status = head[9:12]
        self._chunked = b"transfer-encoding: chunked" in head
        at = head.find(b"content-length:")
        self._left = None if at < 0 else int(head[at + 15 :].split(b"\r\n", 1)[0])
        self._buffer = self._buffer[end + 4 :]
        return True


class Load:
    """The schedule, and what came back."""

    def __init__(self, request: bytes, rate: float) -> None:
        self.request = request
        self.lost = 0
        self._rate = rate
        self._waiting: deque[float] = deque()
        self._idle: list[Connection] = []
        self._took: list[float] = []
        self._first: list[float] = []
        self._errors = self._refused = 0
        self._measuring = False

    def answered(self, connection: Connection, due: float, first: float | None, *, status: bytes) -> None:
        now = time.perf_counter()
        if self._measuring and status == b"200":
            self._took.append(now - due)
            if first is not None:
                self._first.append(first - due)
        elif self._measuring:
            self._refused += status == b"429"
            self._errors += status != b"429"
        if self._rate:
            if self._waiting:
                connection.send(self._waiting.popleft())
            else:
                self._idle.append(connection)
        else:
            connection.send(now)

    async def run(
        self, ports: list[int], connections: int, warm_up: float, seconds: float
    ) -> dict[str, object]:
        loop = asyncio.get_running_loop()
        made = [
            (await loop.create_connection(lambda: Connection(self), "127.0.0.1", ports[one % len(ports)]))[1]
            for one in range(connections)
        ]
        began = time.perf_counter()
        if self._rate:
            self._idle.extend(made)
            clock = asyncio.ensure_future(self._pace(began))
        else:
            for connection in made:
                connection.send(began)
        await asyncio.sleep(warm_up)
        self._measuring, began = True, time.perf_counter()
        await asyncio.sleep(seconds)
        self._measuring, now = False, time.perf_counter()
        if self._rate:
            clock.cancel()
        answered = len(self._took)
        unanswered = [one.age(now) for one in made if one.busy] + [now - due for due in self._waiting]
        if self._rate:
            self._took += unanswered
        return {
            "requests": answered,
            "seconds": now - began,
            "errors": self._errors + self.lost,
            "refused": self._refused,
            "unanswered": len(unanswered) if self._rate else 0,
            "p50_ms": _at(self._took, 0.5),
            "p99_ms": _at(self._took, 0.99),
            "first_p50_ms": _at(self._first, 0.5),
            "first_p99_ms": _at(self._first, 0.99),
        }

    async def _pace(self, began: float) -> None:
        number = 0
        while True:
            now = time.perf_counter()
            while (due := began + number / self._rate) <= now:
                number += 1
                if self._idle:
                    self._idle.pop().send(due)
                else:
                    self._waiting.append(due)
            await asyncio.sleep(max(0.0, began + number / self._rate - time.perf_counter()))


def _at(values: list[float], share: float) -> float | None:
    values.sort()
    return values[min(len(values) - 1, int(len(values) * share))] * 1000 if values else None


def _request(path: str, body: bytes, headers: list[str]) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + _HEAD_END + body


if __name__ == "__main__":
    import uvloop

    ports, path, connections, rate, warm_up, seconds, body, *headers = sys.argv[1:]
    load = Load(_request(path, body.encode(), headers), float(rate))
    everywhere = [int(port) for port in ports.split(",")]
    figures = uvloop.run(load.run(everywhere, int(connections), float(warm_up), float(seconds)))
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")
