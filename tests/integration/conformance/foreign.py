"""A provider written by somebody who has never seen the SDK: NATS and JSON, nothing of ours.

It keeps the contract. Each script in ``broken/`` derives from it and breaks one rule.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import nats
from nats.aio.msg import Msg

SUBJECT = os.environ["NATS_SUBJECT"]
GROUP = os.environ["NATS_QUEUE_GROUP"]
ME = os.environ["BEAMLINE_EXTENSION_ID"]
SCHEMA = {"type": "object", "properties": {"greeting": {"type": "string"}}}


class RefusedError(Exception):
    pass


class Foreign:
    queue = GROUP
    name = "foreign"
    exit_code = 0

    def __init__(self) -> None:
        self.instance = os.urandom(8).hex()
        self.requests = 0
        self.working: set[asyncio.Task[None]] = set()
        self.reads: dict[str, int] = {}
        self.room = asyncio.Event()

    # What the broken ones change -------------------------------------------------------------------

    def metadata(self) -> dict[str, str]:
        return {
            "beamline.type": "provider",
            "beamline.config_schema": json.dumps(SCHEMA),
            "beamline.streams": "true",
        }

    def read(self, data: bytes) -> dict[str, Any]:
        request = json.loads(data)
        if not isinstance(request, dict):
            raise RefusedError("not an object")
        kinds = {
            "prompt": str,
            "messages": list,
            "parameters": dict,
            "config": dict,
            "context": dict,
            "trace_id": str,
        }
        for name, kind in kinds.items():
            if request.get(name) is not None and not isinstance(request[name], kind):
                raise RefusedError(f"{name} has the wrong type")
        if request.get("prompt") is None and request.get("messages") is None:
            raise RefusedError("no prompt")
        return request

    def left_ms(self, headers: dict[str, str]) -> float:
        left = float(headers.get("Beamline-Deadline-Ms", "60000"))
        if "Beamline-Deadline-At" in headers:
            left = min(left, float(headers["Beamline-Deadline-At"]) - time.time() * 1000)
        return left

    def checked_config(self, request: dict[str, Any]) -> None:
        if not isinstance((request.get("config") or {}).get("greeting", ""), str):
            raise RefusedError("config.greeting is no string")

    async def work(self, request: dict[str, Any]) -> None:
        await asyncio.sleep(float((request.get("parameters") or {}).get("latency_ms", 0)) / 1000)

    async def bounded(self, request: dict[str, Any], left_ms: float) -> None:
        async with asyncio.timeout(left_ms / 1000):
            await self.work(request)

    def result(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "provider_id": request.get("provider_id"),
            "output": f"You said: {request.get('prompt') or request.get('messages')}",
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            "metadata": {
                "model": "foreign-1",
                "finish_reason": "stop",
                "trace_id": request.get("trace_id", ""),
            },
        }

    def encoded(self, body: dict[str, Any]) -> bytes:
        data = json.dumps(body).encode()
        return data if len(data) < 1_000_000 else self.error("INTERNAL", "the answer is too large")

    def trace(self, headers: dict[str, str]) -> dict[str, str]:
        return {
            name: headers[name]
            for name in ("traceparent", "tracestate")
            if name in headers and headers[name].isascii()
        }

    def note(self, request: dict[str, Any]) -> None:
        print(json.dumps({"event": "request", "request_id": request.get("request_id")}), flush=True)

    async def spawned(self, message: Msg) -> None:
        task = asyncio.create_task(self.answer(message))
        self.working.add(task)
        task.add_done_callback(self.working.discard)

    async def leave(self, nc: Any, subscription: Any) -> None:
        await subscription.drain()
        while self.working:
            await asyncio.gather(*self.working)
        await nc.drain()

    async def room_for(self, control: str, sent: int, window: int) -> None:
        while sent - self.reads[control] >= window:
            self.room.clear()
            await self.room.wait()

    # The rest --------------------------------------------------------------------------------------

    def error(self, code: str, message: str) -> bytes:
        return json.dumps({"error": {"code": code, "message": message, "retryable": False}}).encode()

    async def answer(self, message: Msg) -> None:
        self.requests += 1
        headers = message.headers or {}
        reply = await self.reply(message, headers)
        if reply is not None and message.reply:
            await self.nc.publish(message.reply, reply, headers=self.trace(headers) or None)

    async def reply(self, message: Msg, headers: dict[str, str]) -> bytes | None:
        try:
            left = self.left_ms(headers)
            if left <= 0:
                return self.error("DEADLINE_EXCEEDED", "too late")
            request = self.read(message.data)
            self.checked_config(request)
            self.note(request)
            if headers.get("Beamline-Stream") == "1":
                await self.streamed(
                    message.reply, request, int(headers.get("Beamline-Stream-Window", "8")), headers
                )
                return None
            await self.bounded(request, left)
            return self.encoded(self.result(request))
        except TimeoutError:
            return self.error("DEADLINE_EXCEEDED", "not done in time")
        except RefusedError as refused:
            return self.error("INVALID_ARGUMENT", str(refused))
        except Exception as failure:  # noqa: BLE001 -- one answer for each request
            return self.error("INVALID_ARGUMENT", type(failure).__name__)

    async def streamed(
        self, reply: str, request: dict[str, Any], window: int, headers: dict[str, str]
    ) -> None:
        control, cancelled = self.nc.new_inbox(), asyncio.Event()
        self.reads[control] = 0

        async def heard(message: Msg) -> None:
            said = json.loads(message.data)
            self.reads[control] = max(self.reads[control], said.get("read", 0))
            if said.get("cancel"):
                cancelled.set()
                self.reads[control] = 10**9
            self.room.set()

        listening = await self.nc.subscribe(control, cb=heard)
        number = 0
        trace = self.trace(headers)

        async def send(body: dict[str, Any], **more: str) -> None:
            nonlocal number
            named = {f"Beamline-Stream-{key.title()}": value for key, value in more.items()}
            named["Beamline-Stream-Sequence"] = str(number)
            await self.nc.publish(reply, json.dumps(body).encode(), headers={**trace, **named})
            number += 1

        await send({}, control=control)
        for word in self.result(request)["output"].split():
            await self.room_for(control, number - 1, window)
            if cancelled.is_set():
                break
            await send({"delta": f"{word} "})
        end = {"error": {"code": "CANCELLED", "message": "the caller left"}}
        if not cancelled.is_set():
            end = self.result(request)
            del end["output"]
        await send(end, end="1")
        await listening.unsubscribe()

    async def described(self, message: Msg) -> None:
        verb = message.subject.split(".")[1]
        body = {
            "type": f"io.nats.micro.v1.{verb.lower()}_response",
            "name": self.name,
            "id": self.instance,
            "version": "1.0.0",
            "metadata": self.metadata(),
        }
        endpoint = {"name": "handle", "subject": SUBJECT, "queue_group": GROUP}
        if verb != "PING":
            body["endpoints"] = [{**endpoint, "num_requests": self.requests}]
        await self.nc.publish(message.reply, json.dumps(body).encode())

    async def run(self) -> None:
        Thread(target=probes().serve_forever, daemon=True).start()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        self.nc = await nats.connect(os.environ["NATS_URL"])
        subscription = await self.nc.subscribe(SUBJECT, queue=self.queue, cb=self.spawned)
        for verb in ("PING", "INFO", "STATS"):
            for tail in ("", f".{self.name}", f".{self.name}.{self.instance}"):
                await self.nc.subscribe(f"$SRV.{verb}{tail}", cb=self.described)
        await stop.wait()
        await self.leave(self.nc, subscription)


class Probe(BaseHTTPRequestHandler):
    missing: tuple[str, ...] = ()

    def do_GET(self) -> None:
        self.send_response(404 if self.path in self.missing else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def probes() -> ThreadingHTTPServer:
    return ThreadingHTTPServer(("127.0.0.1", int(os.environ["METRICS_PORT"])), Probe)


def main(kind: type[Foreign]) -> None:
    asyncio.run(kind().run())


if __name__ == "__main__":
    main(Foreign)
