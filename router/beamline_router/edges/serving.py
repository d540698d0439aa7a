"""What both front doors share: admission, the gate, the pipeline, and one record of every request.

A door asks :meth:`Serving.shed` first, which costs next to nothing: a full or overloaded router answers
RESOURCE_EXHAUSTED at once, because a queue in front of it helps nobody. Then :meth:`Serving.admit`: a caller
without a good key gets no further. Then it hands over bytes and headers and gets a :class:`Served` back; it
only has to write it down in its own protocol. A request that was admitted ends in exactly one record (metric
and log line), also when its caller goes away: then the door cancels the task, the cancellation reaches the
step that runs, and the record says CANCELLED.

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

from ..core.api_keys import ApiKey
from ..core.envelope import Bits, Envelope, open_envelope, request_id_of
from ..core.intake import DEFAULT_TENANT, Shape, near_limits, read_request
from ..core.openai_intake import HEADER_ENVIRONMENT, HEADER_TENANT
from ..core.request import Answer, Failure, Request
from ..core.snapshot import Snapshot
from ..core.stream_port import Sink
from .access_log import AccessLog
from .gate import Gate, Taken
from .refusal import Refusal
from .telemetry import Telemetry
from .traces import Traces
from .trails import Trails

SinkOf = Callable[[Request, Envelope], Sink | None]
"""Where a request's answer is streamed to; None for an answer in one piece."""

log = structlog.get_logger()

DEFAULT_LIMIT: Final = 2048
"""Requests in flight in one router: at 1 KiB each they are nothing, at 256 KiB half a gigabyte."""
_WARN_EVERY_S: Final = 10.0
_KEY_TRAIL: Final = HEADER_TRAIL.lower()
_STARTING_RETRY_MS: Final = 1_000

Run = Callable[[Request, Snapshot, Sink | None], Awaitable[Answer | Failure]]
"""``core.pipeline.Pipeline.run``."""


@dataclass(slots=True)
class Served:
    """How one request ended, with what its reply carries beside the body."""

    envelope: Envelope
    result: Answer | Failure
    want_trail: bool = True
    trail_in_metadata: bool = False
    warnings: tuple[str, ...] = ()

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
        if self.warnings:
            wire["warnings"] = list(self.warnings)
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
        gate: Gate,
        trails: Trails,
        traces: Traces | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._snapshot = snapshot
        self._telemetry = telemetry
        self._access_log = access_log
        self._bits = bits
        self._clock = clock
        self._wall = wall
        self._gate = gate
        self._trails = trails
        self._traces = traces
        self._warned_at = float("-inf")
        self._in_flight = 0
        self._let_in = 0
        self._ended = 0
        self.closing = False
        telemetry.in_flight(lambda: self._in_flight)

    @property
    def in_flight(self) -> int:
        """Requests being served now."""
        return self._in_flight

    @property
    def ended(self) -> int:
        """Requests that ended since the start, those aside that were shed."""
        return self._ended

    def shed(self, door: str) -> Refusal | None:
        """The refusal of a full or overloaded router, counted; None where the request may go on.

        This is the whole cost of a refusal: no ids, no trace, no line in the log.
        """
        refusal = self._gate.full(door, self._in_flight + self._let_in)
        if refusal is not None:
            self._telemetry.shed(door)
            return refusal
        if self._let_in == 0:
            asyncio.get_running_loop().call_soon(self._begin)
        self._let_in += 1
        return None

    def _begin(self) -> None:
        """Who was let in in this turn of the loop begins now, and counts itself. Until then all that a single
        read brings would find the same number in flight, and pass every bound together.
        """
        self._let_in = 0

    def id_of(self, headers: Mapping[str, str]) -> bytes:
        """The request id of one that is shed: its own where that is lawful, else a new one."""
        return request_id_of(headers, self._bits).encode()

    def admit(
        self, door: str, headers: Mapping[str, str], peer: str | None = None
    ) -> ApiKey | WireError | None:
        """The caller's key, None for one who needs none, or the refusal.

        ``headers`` have lower-case names; ``peer`` is the address of an HTTP caller.
        """
        return self._gate.key_of(door, headers, peer)

    def models(self, headers: Mapping[str, str], peer: str | None) -> tuple[str, ...] | WireError:
        """The models that this caller's chat requests can name; none before there is a table."""
        key = self._gate.key_of("http", headers, peer)
        if isinstance(key, WireError):
            return key
        tenant = headers.get(HEADER_TENANT)
        environment = headers.get(HEADER_ENVIRONMENT)
        if key is not None:
            for field, named, decided in (
                ("tenant_id", tenant, key.tenant),
                ("environment", environment, key.environment),
            ):
                if named is not None and decided is not None and named != decided:
                    return WireError.of(
                        ErrorCode.PERMISSION_DENIED,
                        f"{field} is {named[:80]!r}, but the API key is for {decided!r}",
                        details={"field": field},
                    )
            tenant, environment = key.tenant, key.environment or environment
        snapshot = self._snapshot()
        if snapshot is None:
            return ()
        return snapshot.models(tenant or DEFAULT_TENANT, environment, headers)

    async def serve(
        self,
        door: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        key: ApiKey | None = None,
        shape: Shape | None = None,
        sink_of: SinkOf | None = None,
    ) -> Served:
        """One admitted request, start to end. Raises only CancelledError.

        ``headers`` have lower-case names and hold no key any more; ``key`` is what :meth:`admit` found.
        """
        started = self._clock()
        envelope = self._open(headers)
        request: Request | None = None
        warnings: tuple[str, ...] = ()
        taken: Taken | WireError = ()
        self._in_flight += 1
        try:
            if key is not None and isinstance(taken := self._gate.take(door, key.tenant, key), WireError):
                return self._record(door, envelope, None, Failure(taken, []), started)
            read = read_request(
                body, headers, envelope, now=started, unix_ms=self._wall() * 1000.0, shape=shape, bound=key
            )
            if isinstance(read, WireError):
                return self._record(door, envelope, None, Failure(read, []), started)
            request = read
            envelope.tenant = read.tenant_id
            if key is None and isinstance(taken := self._gate.take(door, read.tenant_id, None), WireError):
                return self._record(door, envelope, request, Failure(taken, []), started)
            snapshot = self._snapshot()
            if snapshot is None:
                return self._record(door, envelope, request, Failure(_starting(envelope), []), started)
            if (
                key is not None
                and read.policy is not None
                and not snapshot.is_for(read.policy, read.tenant_id, read.environment)
            ):
                hidden = WireError.of(ErrorCode.NOT_FOUND, "no policy goes by that id")
                return self._record(door, envelope, request, Failure(hidden, []), started)
            if warnings := near_limits(body):
                self._warn(envelope, read, warnings)
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
            if taken and not isinstance(taken, WireError):
                self._gate.give(taken)
        return self._record(door, envelope, request, result, started, warnings=warnings)

    def refuse(self, door: str, headers: Mapping[str, str], error: WireError) -> Served:
        """Records a request that its door itself refuses, such as for its content type."""
        envelope = self._open(headers)
        refused = Failure(error.at(request_id=envelope.request_id), [])
        return self._record(door, envelope, None, refused, self._clock())

    def _open(self, headers: Mapping[str, str]) -> Envelope:
        envelope = open_envelope(headers, self._bits)
        if self._traces is not None:
            self._traces.begin(envelope, headers)
        return envelope

    def _warn(self, envelope: Envelope, request: Request, warnings: tuple[str, ...]) -> None:
        """At most one line per ``_WARN_EVERY_S``: a caller near a limit is near it with each request."""
        now = self._clock()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            log.warning(
                "request.near_limit",
                request_id=envelope.request_id,
                tenant_id=request.tenant_id,
                limits=list(warnings),
            )

    def _record(
        self,
        door: str,
        envelope: Envelope,
        request: Request | None,
        result: Answer | Failure,
        started: float,
        *,
        warnings: tuple[str, ...] = (),
    ) -> Served:
        self._ended += 1
        seconds = self._clock() - started
        self._telemetry.request(door, result, seconds)
        error: WireError | None = None
        provider: str | None = None
        if isinstance(result, Answer):
            provider = result.provider_id
        else:
            error = result.error
            if error.request_id is None:
                error = error.at(request_id=envelope.request_id)
                result = Failure(error, result.trail, result.policy_id)
        tenant = None if request is None else request.tenant_id
        self._trails.note(door, envelope, request, result, started=started, seconds=seconds)
        if envelope.spans is not None:
            envelope.spans.ended(door, tenant, result.policy_id, provider, error)
        if self._access_log.wants(error is not None):
            self._access_log.write(
                door=door,
                request_id=envelope.request_id,
                trace_id=envelope.trace_id,
                tenant_id=tenant,
                policy=result.policy_id,
                provider=provider,
                extension_id=provider if error is None else error.extension_id,
                latency_ms=int(seconds * 1e6 + 0.5) / 1000.0,
                status="ok" if error is None else "error",
                error=None if error is None else error.code.value,
            )
        if request is None:
            return Served(envelope, result)
        return Served(envelope, result, request.want_trail, request.headers.get(_KEY_TRAIL) == "1", warnings)


def _starting(envelope: Envelope) -> WireError:
    return WireError.of(
        ErrorCode.UNAVAILABLE,
        "this router has not read the registry yet",
        retry_after_ms=_STARTING_RETRY_MS,
        attempts=0,
        request_id=envelope.request_id,
    )
