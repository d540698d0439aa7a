"""A model API on loopback that speaks real HTTP/1.1, JSON and server-sent events, and misbehaves when told.

Shapes follow the published references of OpenAI (chat completions) and Anthropic (messages). Each answer of
``script`` is used once, in order; after that the ordinary answer for the path comes.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[["Exchange"], Awaitable[None]]

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
WEATHER_CALL = {
    "id": "call_abc",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Vienna"}'},
}


@dataclass
class Seen:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def key(self) -> str:
        """The key that it carries, wherever the API wants it."""
        return self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass
class Exchange:
    """One request and the way to answer it."""

    seen: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, *lines: str, kind: str = "application/json") -> None:
        extra = "".join(f"{line}\r\n" for line in lines)
        await self.send(f"HTTP/1.1 {status} Said\r\ncontent-type: {kind}\r\n{extra}\r\n".encode())


@dataclass
class FakeApi:
    """The server. ``left`` counts callers that closed their connection while an answer was under way."""

    script: deque[Answer] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def says(self, *answers: Answer) -> None:
        self.script.extend(answers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                seen = Seen(head[0].split(" ")[1], headers, raw)
                self.seen.append(seen)
                self.asked.set()
                answer = self.script.popleft() if self.script else ordinary
                await self._answered(answer, Exchange(seen, reader, writer))
                if writer.is_closing():
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _answered(self, answer: Answer, exchange: Exchange) -> None:
        """Answers, unless the caller leaves before: it sends nothing more, so its next byte is the end."""
        answering = asyncio.ensure_future(answer(exchange))
        leaving = asyncio.ensure_future(exchange.reader.read(1))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() or isinstance(answering.exception(), ConnectionError):
                self.left.set()
                raise ConnectionError
            answering.result()
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)


@asynccontextmanager
async def fake_api(tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeApi]:
    """A running one, behind TLS where a context is given."""
    api = FakeApi()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await api._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    api.port = server.sockets[0].getsockname()[1]
    try:
        yield api
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def whole(body: object, status: int = 200, *lines: str) -> Answer:
    """A JSON answer; ``lines`` are further header lines. ``body`` may be bytes."""

    async def answer(exchange: Exchange) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await exchange.head(status, f"content-length: {len(data)}", *lines)
        await exchange.send(data)

    return answer


def error(
    status: int, kind: str = "some_error", *lines: str, message: str = "said the API", **more: Any
) -> Answer:
    """An error in the shape that both APIs share well enough for their SDKs."""
    words = {"type": kind, "message": message, **more}
    return whole({"type": "error", "error": words}, status, *lines)


def events(*rows: object, pause: float = 0, end: bool = True, then: Answer | None = None) -> Answer:
    """A stream; a row is sent as ``data:``, with its type as ``event:`` where it has one, or as it is (str).

    Without ``end`` the connection breaks after the last row; ``then`` takes over instead.
    """

    async def answer(exchange: Exchange) -> None:
        await exchange.head(200, "transfer-encoding: chunked", kind="text/event-stream")
        for row in rows:
            text = row if isinstance(row, str) else _event(row)
            await exchange.send(_chunk(text))
            await asyncio.sleep(pause)
        if then is not None:
            await then(exchange)
        elif end:
            await exchange.send(b"0\r\n\r\n")
        else:
            exchange.writer.transport.abort()

    return answer


def raw(data: bytes) -> Answer:
    """Bytes, and the end of the connection."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.writer.close()

    return answer


def drip(body: object, seconds: float) -> Answer:
    """A whole answer, one byte at a time, with a pause after each."""

    async def answer(exchange: Exchange) -> None:
        data = json.dumps(body).encode()
        await exchange.head(200, f"content-length: {len(data)}")
        for byte in data:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(seconds)

    return answer


async def reset(exchange: Exchange) -> None:
    """The connection breaks."""
    exchange.writer.transport.abort()


async def silence(_exchange: Exchange) -> None:
    """Nothing, for as long as somebody waits."""
    await asyncio.sleep(600)


async def ordinary(exchange: Exchange) -> None:
    """What the API says when nothing else was scripted: the model and a greeting, whole or streamed."""
    body = exchange.seen.body
    anthropic = exchange.seen.path.endswith("/messages")
    if body.get("stream"):
        rows = claude_rows() if anthropic else gpt_rows(usage="stream_options" in body)
        await events(*rows)(exchange)
    else:
        await whole(claude(body["model"]) if anthropic else gpt(body["model"]))(exchange)


def gpt(model: str = "gpt-4-0613", finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion."""
    said = {"role": "assistant", "content": "Hello there", "refusal": None, "annotations": []}
    choice = {"index": 0, "message": {**said, **message}, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": model,
        "choices": [choice],
        "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}},
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }


def gpt_chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk; without a delta one without choices."""
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    )
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "gpt-4-0613",
        "choices": choices,
        **more,
    }


def gpt_rows(*, usage: bool = True) -> list[object]:
    """A whole stream that says "Hello there"."""
    rows: list[object] = [gpt_chunk({"role": "assistant", "content": ""})]
    rows += [gpt_chunk({"content": text}) for text in ("Hel", "lo ", "there")]
    rows.append(gpt_chunk({}, "stop"))
    if usage:
        rows.append(gpt_chunk(None, usage=USAGE))
    return [*rows, "data: [DONE]\n\n"]


def claude(model: str = "claude-3-opus-20240229", stop: str = "end_turn", *blocks: Any) -> dict[str, Any]:
    """A message."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": list(blocks) or [{"type": "text", "text": "Hello there"}],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "output_tokens": 3,
        },
    }


def claude_rows(stop: str = "end_turn") -> list[object]:
    """A whole stream that says "Hello there"."""
    start = {**claude(), "content": [], "stop_reason": None}
    rows: list[object] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
    ]
    rows += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in ("Hel", "lo ", "there")
    ]
    return [
        *rows,
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    ]


def _event(row: object) -> str:
    name = row.get("type") if isinstance(row, dict) else None
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(row)}\n\n"


def _chunk(text: str) -> bytes:
    data = text.encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
