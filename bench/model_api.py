"""The cheapest upstream that speaks the chat APIs of OpenAI and Anthropic: one fixed answer.

``python -m bench.model_api`` prints its port and answers until it is stopped. A process of its own, so that
what it costs is not counted to what is measured. With ``"stream":true`` in the body it sends OpenAI's 20
chunks, the first at once, the others :data:`GAP_S` apart, and ``[DONE]``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import orjson
import uvloop

GAP_S = 0.01
CHUNKS = 20
TEXT = "The weather in Vienna is fine today. " * 8
OPENAI = orjson.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "gpt-4-0613",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 19, "completion_tokens": 80, "total_tokens": 99},
    }
)
ANTHROPIC = orjson.dumps(
    {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "claude-3-opus-20240229",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 19, "output_tokens": 80},
    }
)


def _whole(body: bytes, request_id: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: " + request_id + b"\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWERS = {b"openai": _whole(OPENAI, b"req_bench"), b"anthropic": _whole(ANTHROPIC, b"req_bench")}


class Upstream(asyncio.Protocol):
    """One connection; requests have a content-length, and answers leave in their order."""

    def __init__(self) -> None:
        self._buffer = b""
        self._streams: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._streams:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 : at + 25].split(b"\r", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            if b'"stream":true' in body or b'"stream": true' in body:
                task = asyncio.ensure_future(self._stream())
                self._streams.add(task)
                task.add_done_callback(self._streams.discard)
                continue
            self._transport.write(ANSWERS[b"anthropic" if b"/messages" in head[:64] else b"openai"])

    async def _stream(self) -> None:
        self._transport.write(STREAM)
        for number in range(CHUNKS):
            if number:
                await asyncio.sleep(GAP_S)
            self._transport.write(_event({"content": f"word{number} "}, None))
        self._transport.write(_event({}, "stop") + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    body = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_763_680_000,
        "model": "bench",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return _chunk(b"data: %b\n\n" % orjson.dumps(body))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
