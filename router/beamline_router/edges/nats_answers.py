"""The answer to one request over NATS: one message, or a stream of them.

A caller that asks for a stream (``"stream": true``, or the header ``Beamline-Stream: 1``) gets the very
protocol that a provider speaks to the router (docs/wire-contract.md, "Streams"): the SDK's own
:class:`~beamline_sdk.streams.StreamSender` writes it. The opening message goes out as soon as the request was
read, so that the caller knows from the start where to say that it has read, or has left.

- **Back-pressure**: with ``Beamline-Stream-Window`` no more chunks leave than the caller has room for, and
  the provider waits in turn. A caller without a window takes what comes; NATS' own limits hold for it.
- **Stalled**: a caller that gives no room for STALLED_S has stopped reading; its request ends as CANCELLED.
- **Gone**: a caller that says ``cancel``, or whose subscription NATS does not find any more, cancels the task
  of its request, as a closed connection does at the HTTP door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson
from nats import errors

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import (
    HEADER_BAGGAGE,
    HEADER_REQUEST_ID,
    HEADER_STREAM,
    HEADER_TENANT,
    HEADER_TRACEPARENT,
)
from beamline_sdk import Delta as Part
from beamline_sdk.streams import StreamSender, StreamSenders

from ..core.envelope import Envelope
from ..core.request import Request
from ..core.stream_port import Delta, Sink, SinkStalledError
from .serving import Served

STALLED_S: Final = 30.0
"""Seconds in which a caller must make room; a reader that pauses longer is gone for us."""
_PIECE: Final = 65_536
_BYTES_PER_CHARACTER: Final = 8  # at most 6 in JSON's longest escape, and room for what is around it
_CONTEXT_ROOM: Final = 9_216  # bytes: the longest baggage that is carried, and the rest of a header block
_KEY_STREAM: Final = HEADER_STREAM.lower()


class NatsAnswer:
    """One exchange, made by the task that serves it. ``max_payload``: the server's, in bytes.

    ``headers`` are the caller's, less what may hold a key.
    """

    __slots__ = ("_headers", "_left", "_max_payload", "_reply", "_senders", "_stream", "_task")

    def __init__(
        self, senders: StreamSenders, reply: bytes, headers: Mapping[str, str], max_payload: int
    ) -> None:
        self._senders = senders
        self._reply = reply
        self._headers = headers
        self._max_payload = max_payload
        self._stream: _Stream | None = None
        self._task: asyncio.Task[Any] | None = None
        self._left = False

    def sink_of(self, request: Request, envelope: Envelope) -> Sink | None:
        """``Serving``'s question where the answer is streamed to."""
        if not request.stream and self._headers.get(_KEY_STREAM) != "1":
            return None
        self._task = asyncio.current_task()
        extra = _ids(envelope)
        sender = self._senders.sender(self._reply.decode(), self._headers, extra)
        sender.on_left = self._leave
        piece = max(1, min(_PIECE, self._max_payload // _BYTES_PER_CHARACTER))
        self._stream = _Stream(sender, piece, _carried(envelope))
        return self._stream

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream, which :meth:`give_up` ends."""
        return self._stream is not None

    def left(self) -> bool:
        """Whether the task was cancelled because the caller has left; the cancellation is then taken back."""
        if self._left and self._task is not None:
            self._task.uncancel()
        return self._left

    def whole(self, served: Served) -> bytes | None:
        """The bytes of the one message that answers; None for a stream, which :meth:`finish` ends."""
        if self._stream is not None:
            return None
        body = served.body()
        return body if len(body) <= self._max_payload else _too_large(served, self._max_payload)

    def context(self, served: Served, body: bytes) -> Mapping[str, str] | None:
        """What goes back beside ``body`` to a caller who sent trace context: request id, trace, tenant and
        baggage.

        None for all others, who have both ids in the body, and where the headers would not fit any more.
        """
        headers = self._headers
        if HEADER_TRACEPARENT not in headers and HEADER_BAGGAGE not in headers:
            return None
        if len(body) + _CONTEXT_ROOM > self._max_payload:
            return None
        return {**_ids(served.envelope), **_carried(served.envelope)}

    async def finish(self, served: Served) -> None:
        """Ends the stream."""
        wire: dict[str, Any] = orjson.loads(served.body())
        wire.pop("output", None)
        body = orjson.dumps(wire)
        if len(body) > self._max_payload - _PIECE // 64:
            body = _too_large(served, self._max_payload)
        await self._end(body)

    async def give_up(self, why: WireError) -> None:
        """Ends a stream that was begun with an error; there is nothing to end otherwise."""
        if self._stream is not None:
            await self._end(orjson.dumps({"error": why.to_wire()}))

    def _leave(self) -> None:
        self._left = True
        if self._task is not None:
            self._task.cancel()

    async def _end(self, body: bytes) -> None:
        assert self._stream is not None
        self._senders.forget(self._stream.sender)
        self._task = self._stream.sender.on_left = None  # each would keep this answer
        await self._stream.opened()
        await self._stream.sender.end(body)


class _Stream:
    """The sink of one stream."""

    def __init__(self, sender: StreamSender, piece: int, opening: Mapping[str, str]) -> None:
        self.sender = sender
        self._piece = piece
        self._opening = asyncio.get_running_loop().create_task(sender.open(opening))

    async def opened(self) -> None:
        """Returns when the opening message has left, or can't."""
        await asyncio.wait([self._opening])
        if not self._opening.cancelled():
            self._opening.exception()

    async def emit(self, delta: Delta) -> None:
        try:
            async with asyncio.timeout(STALLED_S):
                await self._opening
                for at in range(0, len(delta.text), self._piece):
                    await self.sender.chunk(Part(delta.text[at : at + self._piece]))
                if delta.message:
                    await self.sender.chunk(Part(message=delta.message))
        except (TimeoutError, errors.Error) as stalled:  # no room, or no way to the caller
            raise SinkStalledError from stalled


def _ids(envelope: Envelope) -> dict[str, str]:
    return {HEADER_TRACEPARENT: envelope.traceparent, HEADER_REQUEST_ID: envelope.request_id}


def _carried(envelope: Envelope) -> dict[str, str]:
    carried = {HEADER_TENANT: envelope.tenant, HEADER_BAGGAGE: envelope.baggage}
    return {name: value for name, value in carried.items() if value is not None}


def _too_large(served: Served, limit: int) -> bytes:
    error = WireError.of(
        ErrorCode.INTERNAL,
        f"the answer is larger than the {limit} bytes that NATS carries here; use HTTP for it",
        retryable=False,
        request_id=served.envelope.request_id,
    )
    return orjson.dumps({"error": error.to_wire()})
