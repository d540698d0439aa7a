"""The cheapest upstream that speaks the chat APIs of OpenAI and Anthropic: one fixed answer.

``python -m bench.model_api`` prints its port and answers until it is stopped. A process of its own, so that
what it costs is not counted to what is measured.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import orjson
import uvloop

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


ANSWERS = {b"openai": _whole(OPENAI, b"req_bench"), b"anthropic": _whole(ANTHROPIC, b"req_bench")}


class Upstream(asyncio.Protocol):
    """One connection; requests have a content-length, and answers leave in their order."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 : at + 25].split(b"\r", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._transport.write(ANSWERS[b"anthropic" if b"/messages" in head[:64] else b"openai"])


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
