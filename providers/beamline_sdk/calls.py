"""The work of one endpoint: from the bytes of a request to the bytes of its answer.

nats-py hands over one message at a time, so :meth:`Calls.accept` must return at once: it starts a task. At
most ``concurrency`` tasks exist; a task that has answered takes the next request that waits, in order of
arrival. At most ``backlog`` requests wait, and further ones are refused at once: an answer now is worth more
than one too late.

A caller that gives a call up says so (:mod:`.live_calls`): it is then not begun, or cancelled where it
stands.

Before any work the deadline is checked, at the moment the work would start and not when the message came:
what waited too long is refused unexecuted. During the work the same deadline is a timeout.

While the extension is restarted, :meth:`Calls.hold` lets the work finish and the rest wait; while it can't
be brought up again, :meth:`Calls.refuse` answers UNAVAILABLE at once; :meth:`Calls.release` goes on.

Whatever happens, exactly one answer is sent (:mod:`.answers`): the author's result, or an error of the closed
list.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Final, Protocol

import orjson
import structlog

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import HEADER_ATTEMPT
from beamline_contract.wire import MAX_REPLY_BYTES

from .answers import Answers, CallStats, trace_headers, trace_id
from .config import ConfigCache, InvalidConfigError
from .deadline import BadDeadlineError, remaining_ms
from .extension import Extension
from .live_calls import LiveCall, LiveCalls
from .metrics import RuntimeMetrics
from .request import ExtensionRequest, MalformedRequestError, decode
from .results import ExtensionError, ProviderReply
from .streams import Parts, Publish, StreamCancelledError, StreamSenders, asked_to_stream
from .tracing import Tracing

log = structlog.get_logger()

OVERLOAD_RETRY_MS: Final = 100
_NO_HEADERS: Final[Mapping[str, str]] = {}


class Message(Protocol):
    """What is needed of a NATS message."""

    data: bytes
    reply: str
    headers: dict[str, str] | None


class Calls:
    """Answers the requests of one extension. ``tasks`` is the live set of those at work, for the shutdown."""

    def __init__(
        self,
        extension: Extension[Any, Any],
        *,
        extension_id: str,
        publish: Publish,
        metrics: RuntimeMetrics,
        default_config: Mapping[str, Any],
        concurrency: int,
        backlog: int,
        clock_skew_ms: float = 0.0,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        tracing: Tracing | None = None,
    ) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.stats = CallStats()
        self._answers = Answers(extension, extension_id, self.stats, max_reply_bytes)
        self._extension = extension
        self._extension_id = extension_id
        self._publish = publish
        self._metrics = metrics
        self._default_config = default_config
        self._configs: ConfigCache[Any] = ConfigCache(extension.config_model)
        self._concurrency = concurrency
        self._places = concurrency
        self._refusing: str | None = None
        self._backlog = backlog
        self._skew_ms = clock_skew_ms
        self._tracing = tracing
        self.streams = StreamSenders(publish)
        self.live = LiveCalls()
        self._waiting: deque[tuple[Message, float, LiveCall]] = deque()

    @property
    def max_reply_bytes(self) -> int:
        """The largest message that the server takes; a longer answer is an error."""
        return self._answers.max_bytes

    @max_reply_bytes.setter
    def max_reply_bytes(self, limit: int) -> None:
        self._answers.max_bytes = limit

    async def accept(self, message: Message) -> None:
        """Takes one request. Returns before it is answered."""
        self.stats.requests += 1
        if not message.reply:
            self._metrics.refused("malformed")  # nobody would read the answer, so nobody shall pay for it
            return
        received = time.monotonic()
        if len(self.tasks) < self._places:
            self._begin(message, received, self.live.arrived(message.headers))
        elif self._refusing is not None:
            self._metrics.refused("not_ready")
            await self._send(
                message, self._answers.failure(WireError.of(ErrorCode.UNAVAILABLE, self._refusing))
            )
        elif len(self._waiting) < self._backlog:
            self._waiting.append((message, received, self.live.arrived(message.headers)))
            self._metrics.waiting.set(len(self._waiting))
        else:
            self._metrics.refused("overloaded")
            error = WireError.of(
                ErrorCode.RESOURCE_EXHAUSTED,
                f"{self._extension_id} has {self._concurrency} requests in work and {self._backlog} waiting",
                retry_after_ms=OVERLOAD_RETRY_MS,
            )
            await self._send(message, self._answers.failure(error))

    async def hold(self, seconds: float) -> None:
        """Lets requests wait; returns when none is at work, or after ``seconds``."""
        self._places = 0
        if self.tasks:
            await asyncio.wait(tuple(self.tasks), timeout=seconds)

    async def refuse(self, reason: str) -> None:
        """Answers those that wait, and all that come, with UNAVAILABLE and ``reason``."""
        self._places, self._refusing = 0, reason
        while self._waiting:
            message, _, live = self._waiting.popleft()
            self.live.answered(live)
            self._metrics.refused("not_ready")
            await self._send(message, self._answers.failure(WireError.of(ErrorCode.UNAVAILABLE, reason)))

    def release(self) -> None:
        """Goes on, first with those that wait."""
        self._places, self._refusing = self._concurrency, None
        while self._waiting and len(self.tasks) < self._places:
            self._begin(*self._waiting.popleft())
        self._metrics.waiting.set(len(self._waiting))

    def _begin(self, message: Message, received: float, live: LiveCall) -> None:
        task = asyncio.create_task(self._work(message, received, live))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self._metrics.in_flight.set(len(self.tasks))

    async def _work(self, message: Message, received: float, live: LiveCall) -> None:
        try:
            while True:
                try:
                    reply = await self._answer(message, received, live)
                finally:
                    self.live.answered(live)
                if reply is not None:
                    await self._send(message, reply)
                if not self._waiting or len(self.tasks) > self._places:
                    break
                message, received, live = self._waiting.popleft()
                self._metrics.waiting.set(len(self._waiting))
        except asyncio.CancelledError:
            error = WireError.of(ErrorCode.UNAVAILABLE, f"{self._extension_id} is shutting down")
            await self._send(message, self._answers.failure(error))
            while self._waiting:
                waiting, _, _ = self._waiting.popleft()
                await self._send(waiting, self._answers.failure(error))
            raise
        finally:
            self._metrics.in_flight.set(len(self.tasks) - 1)

    async def _answer(self, message: Message, received: float, live: LiveCall) -> bytes | None:
        """The reply; None where it has been streamed."""
        if live.given_up:
            self._metrics.refused("cancelled")
            return self._answers.failure(_caller_left())
        headers = message.headers or _NO_HEADERS
        started = time.monotonic()
        waited_ms = (started - received) * 1000
        try:
            left_ms = (
                remaining_ms(headers, unix_ms=time.time() * 1000 - waited_ms, skew_ms=self._skew_ms)
                - waited_ms
            )
            if left_ms <= 0:
                self._metrics.refused("expired")
                return self._answers.failure(
                    WireError.of(
                        ErrorCode.DEADLINE_EXCEEDED,
                        f"the deadline had passed {-left_ms:.0f} ms before {self._extension_id} could start",
                        retryable=False,
                    )
                )
            request = decode(message.data, self._extension.kind)
            raw = self._default_config if request.config is None else request.config
            config = self._configs.get(raw)
        except (MalformedRequestError, BadDeadlineError) as error:
            self._metrics.refused("malformed")
            return self._answers.failure(WireError.of(ErrorCode.INVALID_ARGUMENT, str(error)))
        except InvalidConfigError as error:
            self._metrics.refused("malformed")
            # The caller can't repair this and another try won't: a fault of the extension as it is set up.
            return self._answers.failure(
                WireError(
                    ErrorCode.INTERNAL,
                    f"the configuration of {self._extension_id} is not valid: {error}",
                    details={"config": list(error.faults)},
                )
            )
        request.headers = headers
        request.deadline = started + left_ms / 1000
        if HEADER_ATTEMPT in headers:
            request.attempt = _attempt(headers[HEADER_ATTEMPT])
        with nullcontext() if self._tracing is None else self._tracing.span(request, self._extension_id):
            parts = asked_to_stream(self._extension, request, config)
            if parts is None:
                return await self._executed(request, config, left_ms / 1000, started, live)
            await self._streamed(message, request, parts, left_ms / 1000, started)
            return None

    async def _streamed(
        self, message: Message, request: ExtensionRequest, parts: Parts, left_s: float, started: float
    ) -> None:
        sender = self.streams.sender(message.reply, request.headers, trace_headers(message.headers))
        status, tokens, error = "ok", None, None
        reply = ProviderReply(output="")
        try:
            async with asyncio.timeout(left_s) as limit:
                reply = await sender.send(parts)
            tokens = (reply.prompt_tokens, reply.completion_tokens)
        except ExtensionError as failure:
            error = failure.to_wire_error()
        except StreamCancelledError:
            error = _caller_left()
        except TimeoutError as failure:
            error = (
                WireError.of(ErrorCode.DEADLINE_EXCEEDED, f"{self._extension_id} did not finish in time")
                if limit.expired()
                else self._answers.fault(request, failure)
            )
        except Exception as failure:  # noqa: BLE001 -- whatever an author's code raises is answered
            error = self._answers.fault(request, failure)
        finally:
            self.streams.forget(sender)
        seconds = time.monotonic() - started
        self.stats.processing_ns += int(seconds * 1e9)
        if error is None:
            provider_id = request.provider_id or self._extension_id
            wire = reply.to_wire(provider_id, trace_id(request), seconds * 1000)
            del wire["output"]
            await sender.end(orjson.dumps(wire))
        else:
            status = "error"
            await sender.end(self._answers.failure(error))
        self._ended(status, seconds, tokens, error)

    async def _executed(
        self, request: ExtensionRequest, config: Any, left_s: float, started: float, live: LiveCall
    ) -> bytes:
        status, tokens, error = "ok", None, None
        reply = b""
        try:
            async with asyncio.timeout(left_s) as limit:
                live.runs_within(limit)
                result = await self._extension.handle(request, config)
            seconds = time.monotonic() - started
            reply, status, tokens = self._answers.result(request, config, result, seconds)
        except ExtensionError as failure:
            error = failure.to_wire_error()
        except TimeoutError as failure:
            if not limit.expired():
                error = self._answers.fault(request, failure)
            elif live.given_up:
                error = _caller_left()
            else:
                error = WireError.of(
                    ErrorCode.DEADLINE_EXCEEDED, f"{self._extension_id} did not finish in time"
                )
        except Exception as failure:  # noqa: BLE001 -- whatever an author's code raises is answered
            error = self._answers.fault(request, failure)
        seconds = time.monotonic() - started
        self.stats.processing_ns += int(seconds * 1e9)
        if error is not None:
            status, reply = "error", self._answers.failure(error)
        self._ended(status, seconds, tokens, error)
        log.debug(
            "request.answered",
            extension_id=self._extension_id,
            trace_id=request.trace_id[:128],
            tenant_id=request.tenant_id[:128],
            latency_ms=round(seconds * 1000, 3),
            status=status,
            error=None if error is None else error.code.value,
        )
        return reply

    def _ended(
        self, status: str, seconds: float, tokens: tuple[int, int] | None, error: WireError | None
    ) -> None:
        trace_id = None if self._tracing is None else self._tracing.trace_id()
        self._metrics.executed(status, seconds, tokens, trace_id)
        if self._tracing is not None:
            self._tracing.ended(status, None if error is None else error.code.value, tokens)

    async def _send(self, message: Message, reply: bytes) -> None:
        try:
            await self._publish(message.reply, reply, headers=trace_headers(message.headers))
        except Exception as error:  # noqa: BLE001 -- whoever asked is gone with the connection
            log.debug("reply.lost", extension_id=self._extension_id, error=type(error).__name__)


def _caller_left() -> WireError:
    return WireError.of(ErrorCode.CANCELLED, "the caller left")


def _attempt(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 1
