"""A model API that answers at once, whole or as a stream, in the words of OpenAI and of Anthropic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

WORDS = [f"word{number} " for number in range(8)]


class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))))
        anthropic = self.path.endswith("/messages")
        if asked.get("stream"):
            rows = list(_claude_rows() if anthropic else _gpt_rows())
            self._send("text/event-stream", "".join(rows).encode())
        else:
            self._send("application/json", json.dumps(_claude() if anthropic else _gpt()).encode())

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def model_stub() -> Iterator[str]:
    """Its address, without a path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _gpt() -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _gpt_rows() -> Iterator[str]:
    whole = {**_gpt(), "object": "chat.completion.chunk", "usage": None}
    for text in WORDS:
        delta = {"role": "assistant", "content": text}
        yield _data({**whole, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _data({**whole, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield _data({**whole, "choices": [], "usage": _gpt()["usage"]})
    yield "data: [DONE]\n\n"


def _claude() -> dict[str, Any]:
    return {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _claude_rows() -> Iterator[str]:
    start = {**_claude(), "content": [], "stop_reason": None}
    yield _data({"type": "message_start", "message": start})
    yield _data({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for text in WORDS:
        delta = {"type": "text_delta", "text": text}
        yield _data({"type": "content_block_delta", "index": 0, "delta": delta})
    yield _data({"type": "content_block_stop", "index": 0})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _data({"type": "message_delta", "delta": end, "usage": {"output_tokens": 8}})
    yield _data({"type": "message_stop"})


def _data(row: dict[str, Any]) -> str:
    event = f"event: {row['type']}\n" if "type" in row else ""
    return f"{event}data: {json.dumps(row)}\n\n"
