"""A provider asked for a stream, inside the very same bulkhead, retry, breaker and fallback as any call.

:func:`stream_invoker` makes an :class:`Invoker` whose transport reads a stream to its end and hands over what
one reply would have said. What differs from a plain call:

- The commit point is the first delta that the sink was given. Until then an attempt may fail, be retried,
  and fall back, as if nothing had come. After it there is one way to fail: STREAM_INTERRUPTED, with what was
  delivered, and nobody else is asked.
- An attempt's timeout bounds the wait for the first chunk and between two chunks. The request's deadline
  bounds the whole; the provider is told that one.
- Slow is measured up to the first chunk: a long answer is not a slow one.
- A caller that leaves or stops reading, a post step that fails, and the request's deadline are not the
  provider's fault. It is told to stop, and its breaker learns nothing. Of an error that the provider states
  within the stream its breaker learns what it would of the same error before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from beamline_contract import names
from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.wire import MAX_JSON_DEPTH, MAX_REPLY_BYTES
from beamline_sdk.deltas import merged

from .deadline import attempt_timeout, header_values
from .invoke import Invoker
from .ports import TransportFault
from .reading import brackets_within, depth
from .run import Run
from .stream_port import WINDOW, Chunk, Delta, ReplyStream, Sink, SinkStalledError, StreamFault, Streams
from .twice import CHUNK_FIELDS, says_twice
from .windows import Chain

_ROOM: Final = 64 * 1024  # of MAX_REPLY_BYTES, for what is not the text
_PROVIDER_FAILED: Final = "the provider failed within the stream"
_FRAME: Final = len(b'{"delta":""}')  # around the text of each chunk, and not part of the answer


class Delivery:
    """What one request's stream has delivered; the pump and the pipeline share it.

    ``error`` is the error that ended the stream from our side, such as a post step's; it is not the
    provider's. ``guard`` is what the post steps make of the message's parts beside the text, which then wait
    for the end. ``verdict`` is waited for before anybody, a post step included, is shown any of the answer.
    """

    def __init__(
        self,
        run: Run,
        sink: Sink,
        window: Chain,
        guard: Callable[[Any], Awaitable[Any]] | None,
        verdict: asyncio.Event | None = None,
    ) -> None:
        self.error: WireError | None = None
        self.parts: list[str] = []
        self._run = run
        self._sink = sink
        self._window = window
        self._guard = guard
        self._verdict = verdict
        self._message: dict[str, Any] = {}
        self.said_message = False
        self._chunks = 0
        self._characters = 0

    async def feed(self, text: str) -> bool:
        """More of the provider's text; False when the stream must end, and ``error`` says why."""
        if self._verdict is not None:
            await self._verdict.wait()
        return await self._emit_text(await self._window.feed(text))

    async def pass_on(self, message: Mapping[str, Any]) -> bool:
        """More of the message's other parts."""
        self.said_message = True
        if self._guard is None:
            if self._verdict is not None:
                await self._verdict.wait()
            return await self._emit(Delta(message=message))
        self._message = merged(self._message, message)
        return True

    async def finish(self) -> bool:
        """Delivers what is still held."""
        if self._verdict is not None:
            await self._verdict.wait()
        if not await self._emit_text(await self._window.finish()):
            return False
        if self._guard is None or not self._message:
            return True
        message = await self._guard(self._message)
        if isinstance(message, WireError):
            self.error = message
            return False
        return await self._emit(Delta(message=message))

    def begin(self) -> None:
        """A new attempt: what was held of the one before is dropped."""
        self._window.reset()
        self._message = {}
        self.said_message = False

    def interrupted(self, why: str, **details: Any) -> WireError:
        """STREAM_INTERRUPTED, with what was delivered."""
        delivered = {"delivered_chunks": self._chunks, "delivered_characters": self._characters}
        return WireError(ErrorCode.STREAM_INTERRUPTED, why, details={**delivered, **details})

    def ended_badly(self, error: WireError, why: str = _PROVIDER_FAILED) -> WireError:
        """``error`` after a part was delivered, such as an end that is no valid reply."""
        interrupted = self.interrupted(why, cause=error.code.value)
        return interrupted.at(step=error.step, extension_id=error.extension_id, attempts=error.attempts)

    async def _emit_text(self, text: str | WireError) -> bool:
        if isinstance(text, WireError):
            self.error = text
            return False
        if not text:
            return True
        self.parts.append(text)
        return await self._emit(Delta(text))

    async def _emit(self, delta: Delta) -> bool:
        self._run.committed = True
        try:
            await self._sink.emit(delta)
        except SinkStalledError:
            self.error = WireError.of(ErrorCode.CANCELLED, "the caller stopped reading the stream")
            return False
        self._chunks += 1
        self._characters += len(delta.text)
        return True


def stream_invoker(streams: Streams, run: Run, delivery: Delivery, *ports: Any, **clocks: Any) -> Invoker:
    """Calls providers of one request for a stream: as :class:`Invoker`, and what to stream into."""
    pump = _Pump(streams, run, delivery, clocks["clock"], clocks["wall"])
    return Invoker(pump, *ports, watch=pump, **clocks)


class _Pump:
    """``ports.Transport`` over streams: a request is answered when its stream has ended. It is the invoker's
    ``Watch`` as well.
    """

    def __init__(
        self,
        streams: Streams,
        run: Run,
        delivery: Delivery,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.first_at: float | None = None
        self.blameless = False
        self.said: WireError | None = None
        self._streams = streams
        self._run = run
        self._delivery = delivery
        self._clock = clock
        self._wall = wall

    def after_first(self, done: float) -> float:
        return 0.0 if self.first_at is None else done - self.first_at

    async def request(
        self, subject: str, payload: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> bytes | TransportFault:
        """One attempt. ``timeout_s`` is for each chunk."""
        self.first_at, self.blameless, self.said = None, False, None
        self._delivery.begin()
        left = self._run.deadline - self._clock()
        milliseconds, at = header_values(left, self._wall())
        stream = await self._streams.open(
            subject,
            payload,
            {
                **headers,
                names.HEADER_DEADLINE_MS: milliseconds,
                names.HEADER_DEADLINE_AT: at,
                names.HEADER_STREAM: "1",
                names.HEADER_STREAM_WINDOW: str(WINDOW),
            },
        )
        if isinstance(stream, TransportFault):
            return stream
        try:
            return await self._read(stream, timeout_s)
        finally:
            await stream.close()

    async def _read(self, stream: ReplyStream, own_s: float) -> bytes | TransportFault:
        size, begun = 0, False
        texts: list[str] = []
        while True:
            timeout_s = attempt_timeout(own_s, self._run.deadline, self._clock())
            chunk = await stream.next(timeout_s) if timeout_s > 0 else TransportFault.TIMED_OUT
            if not isinstance(chunk, Chunk):
                return self._broken(chunk, cut_short=timeout_s < own_s)
            if self.first_at is None:
                self.first_at = self._clock()
            body = _object(chunk.payload)
            if body is None:
                return self._failed(WireError(ErrorCode.INTERNAL, "a chunk of the stream is malformed"))
            if body.get("error") is not None:
                return self._said(body["error"], chunk.payload, own_s)
            text = _text_of(body, chunk, said=bool(texts))
            message = _message_of(body, chunk, said=self._delivery.said_message)
            if not isinstance(text, str) or not isinstance(message, dict | None):
                return self._failed(WireError(ErrorCode.INTERNAL, "a chunk of the stream is malformed"))
            size += max(1, len(chunk.payload) - _FRAME)
            if size > MAX_REPLY_BYTES - (0 if chunk.whole else _ROOM):
                return self._failed(WireError(ErrorCode.INTERNAL, "the stream is larger than 1 MiB"))
            if chunk.whole and begun:
                return self._failed(WireError(ErrorCode.INTERNAL, "a whole reply came within the stream"))
            begun = True
            if text:
                texts.append(text)
            if (text and not await self._delivery.feed(text)) or (
                message and not await self._delivery.pass_on(message)
            ):
                return self._ended_by_us()
            if chunk.last:
                return orjson.dumps({**body, "output": "".join(texts)})

    def _broken(self, fault: TransportFault | StreamFault, *, cut_short: bool) -> bytes | TransportFault:
        timed_out = fault is TransportFault.TIMED_OUT
        self.blameless = (timed_out and cut_short) or fault is TransportFault.DISCONNECTED
        if self._run.committed:
            why = "the deadline passed within the stream" if cut_short and timed_out else fault.value
            return _error(self._delivery.interrupted(f"the stream broke: {why}"))
        if isinstance(fault, StreamFault):
            return _error(WireError.of(ErrorCode.UNAVAILABLE, fault.value))
        return fault

    def _said(self, raw: Any, as_sent: bytes, own_s: float) -> bytes:
        """An error of the provider's own. It was told the request's deadline, and no other."""
        self.said = error = WireError.from_wire(raw)
        late = attempt_timeout(own_s, self._run.deadline, self._clock()) < own_s
        self.blameless = late and error.code is ErrorCode.DEADLINE_EXCEEDED
        return self._failed(error) if self._run.committed else as_sent

    def _failed(self, error: WireError) -> bytes:
        if not self._run.committed:
            return _error(error)
        return _error(self._delivery.interrupted(_PROVIDER_FAILED, cause=error.code.value))

    def _ended_by_us(self) -> bytes:
        self.blameless = True
        return _error(WireError(ErrorCode.CANCELLED, "the router ended the stream"))


def _object(payload: bytes) -> dict[str, Any] | None:
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if not brackets_within(payload, MAX_JSON_DEPTH) and depth(body) > MAX_JSON_DEPTH:
        return None
    if says_twice(payload, CHUNK_FIELDS):
        return None
    return body if isinstance(body, dict) else None


def _text_of(body: dict[str, Any], chunk: Chunk, *, said: bool) -> Any:
    """What a chunk adds to the text; a whole reply, and an end after chunks that had none, has it in its
    output.
    """
    if chunk.whole:
        return body.get("output")
    if chunk.last and not said and "delta" not in body:
        return body.get("output") or ""
    return body.get("delta", "")


def _message_of(body: dict[str, Any], chunk: Chunk, *, said: bool) -> Any:
    """What a chunk adds to the message beside its text; a whole reply, and an end after chunks that had none,
    has it in its metadata.
    """
    if not chunk.last:
        return body.get("message")
    if said:
        return None
    metadata = body.get("metadata")
    return metadata.get("message") if isinstance(metadata, dict) else None


def _error(error: WireError) -> bytes:
    return orjson.dumps({"error": error.to_wire()})
