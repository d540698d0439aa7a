"""Clients of a router, run inside the cluster by the Python of Beamline's own image.

``traffic.py ask http URL [KEY]`` and ``traffic.py ask nats URL`` send the request that stands on stdin and
print ``{"status", "body"}``. ``traffic.py load`` reads its plan from the environment (PLAN, JSON) and sends
until /tmp/stop exists; each second, and at the end, it prints its counts as one line of JSON.

The load has three kinds of workers, each with one request at a time: ``keep`` (HTTP on one kept connection),
``fresh`` (a connection per request) and ``nats``. Nothing is sent twice: a request that gets no good answer
is lost and stands under ``failures`` with the time at which it was sent, and the reason. A kept connection
that the server has closed while it was idle is opened anew before the next request, as HTTP clients do.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

STOP = Path("/tmp/stop")
SUBJECT = "beamline.router.v1.invoke"
TIMEOUT_S = 20.0


class Http:
    """One HTTP/1.1 connection to a router."""

    def __init__(self, url: str, key: str, *, keep: bool) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.path = parts.hostname or "", parts.port or 80, parts.path or "/v1/route"
        self.key, self.keep = key, keep
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, body: bytes) -> tuple[int, dict]:
        if self.writer is None or self.writer.is_closing() or self.reader.at_eof():
            self.close()
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"host: {self.host}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"connection: {'keep-alive' if self.keep else 'close'}",
        ]
        if self.key:
            lines.append(f"authorization: Bearer {self.key}")
        try:
            self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await self.writer.drain()
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            status = int(head.split(" ", 2)[1])
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            answer = await self.reader.readexactly(int(fields.get("content-length", 0)))
        except BaseException:
            self.close()
            raise
        if not self.keep or fields.get("connection") == "close":
            self.close()
        return status, json.loads(answer or b"{}")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Nats:
    """One NATS connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = None

    async def ask(self, body: bytes) -> tuple[int, dict]:
        import nats

        if self.client is None:
            self.client = await nats.connect(self.url, max_reconnect_attempts=-1, connect_timeout=5)
        reply = await self.client.request(SUBJECT, body, timeout=TIMEOUT_S)
        answer = json.loads(reply.data)
        return (500 if "error" in answer else 200), answer


class Load:
    def __init__(self, plan: dict) -> None:
        self.plan = plan
        self.body = json.dumps(plan["request"]).encode()
        self.counts = {"sent": 0, "ok": 0, "providers": {}, "doors": {}, "failures": [], "lost": 0}
        self.last_ok = time.monotonic()
        self.longest_gap = 0.0

    async def worker(self, door: str, index: int) -> None:
        client = (
            Nats(self.plan["nats"])
            if door == "nats"
            else Http(self.plan["http"], self.plan.get("key", ""), keep=door == "keep")
        )
        await asyncio.sleep(index * 0.037)
        while not STOP.exists():  # noqa: ASYNC240 -- a tmpfs
            await self.one(door, client)
            await asyncio.sleep(self.plan["pause"])

    async def one(self, door: str, client: Http | Nats) -> None:
        self.counts["sent"] += 1
        sent = time.time()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, answer = await client.ask(self.body)
            why = "" if status == 200 and "output" in answer else f"{status} {json.dumps(answer)[:300]}"
        except Exception as error:  # noqa: BLE001 -- whatever it is, the request is lost
            answer, why = {}, f"{type(error).__name__}: {error}"
        if why:
            self.counts["lost"] += 1
            self.counts["failures"] = [
                *self.counts["failures"][-19:],
                {"at": sent, "door": door, "why": why},
            ]
            return
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - self.last_ok)
        self.last_ok = now
        self.counts["ok"] += 1
        for group, name in (("providers", answer.get("provider_id", "?")), ("doors", door)):
            self.counts[group][name] = self.counts[group].get(name, 0) + 1

    def line(self, *, done: bool) -> None:
        gap = round(self.longest_gap, 3)
        print(json.dumps({**self.counts, "longest_gap_s": gap, "done": done}), flush=True)

    async def run(self) -> None:
        doors = [door for door, many in self.plan["workers"].items() for _ in range(many)]
        workers = [asyncio.create_task(self.worker(door, index)) for index, door in enumerate(doors)]
        while not all(worker.done() for worker in workers):
            await asyncio.wait(workers, timeout=1)
            self.line(done=False)
        self.line(done=True)


async def ask(kind: str, url: str, key: str) -> None:
    client = Nats(url) if kind == "nats" else Http(url, key, keep=False)
    status, body = await client.ask(sys.stdin.buffer.read())
    print(json.dumps({"status": status, "body": body}))


if __name__ == "__main__":
    if sys.argv[1] == "load":
        asyncio.run(Load(json.loads(os.environ["PLAN"])).run())
    else:
        asyncio.run(ask(sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else ""))
