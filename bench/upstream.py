"""An OpenAI-compatible upstream that costs nothing: the same answer to every POST. A process of its own.

``python -m bench.upstream`` prints its port. With ``"stream":true`` in the body it sends 20 chunks, the first
at once, the others :data:`GAP_S` apart, and ``[DONE]``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import orjson

GAP_S = 0.01
CHUNKS = 20
TEXT = (
    "In half-open state the breaker admits a bounded number of trial calls. Calls that arrive while a trial "
    "is under way are refused at once; when the trials succeed the breaker closes, else it opens again."
)
_ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_763_680_000,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 96, "completion_tokens": 58, "total_tokens": 154},
    }
)
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_ANSWER),
    _ANSWER,
)
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Answering(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
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
            length = 0 if at < 0 else int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            assert self._transport is not None
            if b'"stream":true' in body or b'"stream": true' in body:
                task = asyncio.ensure_future(self._stream(self._transport))
                self._streams.add(task)
                task.add_done_callback(self._streams.discard)
            else:
                self._transport.write(_WHOLE)

    async def _stream(self, transport: asyncio.Transport) -> None:
        transport.write(_STREAM)
        for number in range(CHUNKS):
            if number:
                await asyncio.sleep(GAP_S)
            transport.write(_event({"content": f"word{number} "}, None))
        transport.write(_event({}, "stop") + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


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
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
