"""What both front doors share: admission, the gate, the pipeline, and one record of every request.

A door hands over bytes and headers and gets a :class:`Served` back; it only has to write it down in its own
protocol. Admission comes first and costs nothing: above ``limit`` requests in flight the answer is
RESOURCE_EXHAUSTED at once, because a queue in front of a full router helps nobody. A request that was
admitted ends in exactly one record (metric and log line), also when its caller goes away: then the door
cancels the task, the cancellation reaches the step that runs, and the record says CANCELLED.

A request takes the snapshot that is current when it begins, and keeps it to its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import HEADER_TRAIL

from ..core.intake import Bits, Envelope, Shape, open_envelope, read_request
from ..core.request import Answer, Failure, Request
from ..core.snapshot import Snapshot
from ..core.stream_port import Sink
from .access_log import AccessLog
from .telemetry import Telemetry

SinkOf = Callable[[Request, Envelope], Sink | None]
"""Where a request's answer is streamed to; None for an answer in one piece."""

log = structlog.get_logger()

DEFAULT_LIMIT: Final = 2048
"""Requests in flight in one router: at 1 KiB each they are nothing, at 256 KiB half a gigabyte."""
_BUSY_RETRY_MS: Final = 1_000
_KEY_TRAIL: Final = HEADER_TRAIL.lower()
_STARTING_RETRY_MS: Final = 1_000

Run = Callable[[Request, Snapshot, Sink | None], Awaitable[Answer | Failure]]
"""``core.pipeline.Pipeline.run``."""


@dataclass(frozen=True, slots=True)
class Served:
    """How one request ended, with what its reply carries beside the body."""

    envelope: Envelope
    result: Answer | Failure
    want_trail: bool = True
    trail_in_metadata: bool = False

    @property
    def metadata(self) -> dict[str, Any]:
        """The answer's metadata, with the trail under ``steps`` where the caller asked for it."""
        result = self.result
        known = result.metadata if isinstance(result, Answer) else {}
        if not self.trail_in_metadata:
            return known
        return {**known, "steps": [step.to_wire() for step in result.trail]}

    def body(self) -> bytes:
        """The JSON of the reply: the provider's reply with request id, policy and steps, or ``{"error":
        ...}``.
        """
        result = self.result
        wire: dict[str, Any]
        if isinstance(result, Answer):
            wire = {
                "provider_id": result.provider_id,
                "output": result.output,
                "usage": result.usage,
                "metadata": self.metadata,
                "request_id": self.envelope.request_id,
                "policy": result.policy_id,
            }
        else:
            wire = {"error": result.error.to_wire()}
        if self.want_trail and result.trail:
            wire["steps"] = [step.to_wire() for step in result.trail]
        return orjson.dumps(wire, default=str)


class Serving:
    """Serves requests of every door. ``clock`` is monotonic seconds, ``wall`` Unix seconds, ``bits`` random
    bits.
    """

    def __init__(
        self,
        *,
        run: Run,
        snapshot: Callable[[], Snapshot | None],
        telemetry: Telemetry,
        access_log: AccessLog,
        bits: Bits,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        self._run = run
        self._snapshot = snapshot
        self._telemetry = telemetry
        self._access_log = access_log
        self._bits = bits
        self._clock = clock
        self._wall = wall
        self._limit = limit
        self._in_flight = 0
        self.closing = False
        telemetry.in_flight(lambda: self._in_flight)

    @property
    def in_flight(self) -> int:
        """Requests being served now."""
        return self._in_flight

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the policies name; none before there is a table."""
        snapshot = self._snapshot()
        return () if snapshot is None else snapshot.models()

    async def serve(
        self,
        door: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        shape: Shape | None = None,
        sink_of: SinkOf | None = None,
    ) -> Served:
        """One request, start to end. ``headers`` have lower-case names. Raises only CancelledError."""
        started = self._clock()
        envelope = open_envelope(headers, self._bits)
        if self._in_flight >= self._limit:
            return self._record(door, envelope, None, Failure(_busy(self._limit, envelope), []), started)
        request: Request | None = None
        self._in_flight += 1
        try:
            read = read_request(
                body, headers, envelope, now=started, unix_ms=self._wall() * 1000.0, shape=shape
            )
            if isinstance(read, WireError):
                return self._record(door, envelope, None, Failure(read, []), started)
            request = read
            snapshot = self._snapshot()
            if snapshot is None:
                return self._record(door, envelope, request, Failure(_starting(envelope), []), started)
            sink = None if sink_of is None else sink_of(request, envelope)
            result = await self._run(request, snapshot, sink)
        except asyncio.CancelledError:
            gone = WireError.of(ErrorCode.CANCELLED, "the caller went away", request_id=envelope.request_id)
            self._record(door, envelope, request, Failure(gone, []), started)
            raise
        except Exception as error:
            log.exception("request.crashed", request_id=envelope.request_id, trace_id=envelope.trace_id)
            broken = WireError.of(
                ErrorCode.INTERNAL,
                f"the router failed ({type(error).__name__}); its log has the place under this request id",
                request_id=envelope.request_id,
            )
            result = Failure(broken, [])
        finally:
            self._in_flight -= 1
        return self._record(door, envelope, request, result, started)

    def refuse(self, door: str, headers: Mapping[str, str], error: WireError) -> Served:
        """Records a request that its door itself refuses, such as for its content type."""
        envelope = open_envelope(headers, self._bits)
        refused = Failure(error.at(request_id=envelope.request_id), [])
        return self._record(door, envelope, None, refused, self._clock())

    def _record(
        self, door: str, envelope: Envelope, request: Request | None, result: Answer | Failure, started: float
    ) -> Served:
        seconds = self._clock() - started
        self._telemetry.request(door, result, seconds)
        if isinstance(result, Failure) and result.error.request_id is None:
            result = Failure(result.error.at(request_id=envelope.request_id), result.trail, result.policy_id)
        if self._access_log.enabled:
            self._write_line(door, envelope, request, result, seconds)
        if request is None:
            return Served(envelope, result)
        return Served(envelope, result, request.want_trail, request.headers.get(_KEY_TRAIL) == "1")

    def _write_line(
        self, door: str, envelope: Envelope, request: Request | None, result: Answer | Failure, seconds: float
    ) -> None:
        answered = isinstance(result, Answer)
        error = None if isinstance(result, Answer) else result.error
        provider = result.provider_id if isinstance(result, Answer) else None
        self._access_log.write(
            door=door,
            request_id=envelope.request_id,
            trace_id=envelope.trace_id,
            tenant_id=None if request is None else request.tenant_id,
            policy=result.policy_id,
            provider=provider,
            extension_id=provider if error is None else error.extension_id,
            latency_ms=round(seconds * 1000.0, 3),
            status="ok" if answered else "error",
            error=None if error is None else error.code.value,
        )


def _busy(limit: int, envelope: Envelope) -> WireError:
    return WireError.of(
        ErrorCode.RESOURCE_EXHAUSTED,
        f"this router already serves {limit} requests; nothing was executed",
        retry_after_ms=_BUSY_RETRY_MS,
        attempts=0,
        request_id=envelope.request_id,
    )


def _starting(envelope: Envelope) -> WireError:
    return WireError.of(
        ErrorCode.UNAVAILABLE,
        "this router has not read the registry yet",
        retry_after_ms=_STARTING_RETRY_MS,
        attempts=0,
        request_id=envelope.request_id,
    )
