"""``/api/v1/playground/stream``: the playground's answers as they come, as server-sent events.

    begin   ``{"index": 0, "policy": ..., "request_id": ...}``, once for each policy
    chunk   ``{"index": 0, "text": "..."}``, or ``"message"`` for parts beside the text
    answer  ``{"index": 0, ...}``: the whole of it, as ``POST /api/v1/playground`` would have answered
    end     every answer has been told

Each request has a task of its own that reads from NATS, so one that is slow keeps no other waiting; what they
read meets in one queue. A caller who goes away ends the response, and with it the tasks; a task that ends
early tells its router, which cancels the request: nothing more is generated or paid for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from itertools import count
from typing import Any, Final

import orjson
import structlog
from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from beamline_contract.errors import ErrorCode

from .access import Operator
from .identity import Identity
from .live.watcher import Watcher
from .playground_api import Asked, PlaygroundAnswer, PlaygroundBody, answered, asked_of, told
from .routers import RoutersError

log = structlog.get_logger()

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_S: Final = 10.0
EVENTS: Final = ("begin", "chunk", "answer", "end")
_EVENT_SCHEMA: Final[dict[str, Any]] = {
    "description": "One event of the stream; `data` is JSON.",
    "type": "object",
    "properties": {
        "event": {"enum": list(EVENTS)},
        "id": {"type": "string", "description": "1 and up, in this stream."},
        "data": {"type": "string"},
    },
    "required": ["event", "id", "data"],
}
_Told = tuple[int, str, Any]
"""Which answer, which event, and its data."""


def playground_stream(watcher: Watcher) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post(
        "/playground/stream",
        tags=["requests"],
        response_class=StreamingResponse,
        responses={
            200: {"description": "Server-sent events", "content": {MEDIA_TYPE: {"schema": _EVENT_SCHEMA}}}
        },
    )
    async def stream_request(request: Request, body: PlaygroundBody, who: Operator) -> StreamingResponse:
        """As `POST /api/v1/playground`, told as it comes; ending the connection cancels the request."""
        requests = await asked_of(watcher, body, who)
        events = _events(watcher, requests, who, body.trail, request.state.request_id)
        return StreamingResponse(events, media_type=MEDIA_TYPE, headers={"x-accel-buffering": "no"})

    return routes


async def _events(
    watcher: Watcher, requests: list[Asked], who: Identity, want_trail: bool, request_id: str
) -> AsyncIterator[bytes]:
    numbers = count(1)
    queue: asyncio.Queue[_Told] = asyncio.Queue()
    answers: dict[int, PlaygroundAnswer] = {}
    for index, asked in enumerate(requests):
        queue.put_nowait((index, "begin", {"policy": asked.policy, "request_id": asked.request_id}))
    tasks = [
        asyncio.create_task(_read(watcher, asked, who, index, queue, want_trail=want_trail))
        for index, asked in enumerate(requests)
    ]
    try:
        while len(answers) < len(requests):
            try:
                index, event, data = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            if isinstance(data, PlaygroundAnswer):
                answers[index] = data
                data = data.model_dump()
            yield _event(next(numbers), event, {"index": index, **data})
        yield _event(next(numbers), "end", {})
    finally:
        for task in tasks:
            task.cancel()
        told(who, request_id, answers.values())


async def _read(
    watcher: Watcher,
    asked: Asked,
    who: Identity,
    index: int,
    queue: asyncio.Queue[_Told],
    *,
    want_trail: bool,
) -> None:
    """Reads one answer to its end. What goes wrong is an answer, too."""
    assert watcher.routers is not None
    began, text = time.monotonic(), []
    reply: dict[str, Any] = {}
    try:
        parts: AsyncGenerator[dict[str, Any], None] = watcher.routers.stream(
            asked.request, asked.headers, asked.seconds
        )
        async with aclosing(parts):
            async for reply in parts:
                if isinstance(part := reply.get("delta"), str):
                    text.append(part)
                    queue.put_nowait((index, "chunk", {"text": part}))
                elif "message" in reply:
                    queue.put_nowait((index, "chunk", {"message": reply["message"]}))
    except RoutersError as error:
        reply = {"error": {"code": ErrorCode.UNAVAILABLE.value, "message": str(error)}}
    except Exception as error:  # whoever reads the stream must hear of its end
        log.exception("admin.playground_failed", request_id=asked.request_id)
        why = f"the admin process failed ({type(error).__name__})"
        reply = {"error": {"code": ErrorCode.INTERNAL.value, "message": why}}
    seconds = time.monotonic() - began
    if not isinstance(reply.get("error"), dict):
        reply = {**reply, "output": "".join(text)}
    answer = await answered(watcher, asked, who, reply, seconds, want_trail=want_trail)
    queue.put_nowait((index, "answer", answer))


def _event(number: int, event: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (event.encode(), number, orjson.dumps(data, default=str))
