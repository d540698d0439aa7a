"""Traces of requests by OpenTelemetry, off unless ``OTEL_*`` asks (:func:`beamline_sdk.tracing.wanted`).

    router.request                   SERVER, from the door and back; its parent is the caller's span
      router.extension.invoke        CLIENT, one per attempt: retries and fallbacks are its siblings
        router.extension.{type}      SERVER, by the extension's process, if that sends spans
          provider.{id}.api_call     CLIENT, by the extension

Off, a request pays for a few comparisons with None. On, it notes one tuple per attempt; spans are made of
them when the request has ended and only where its trace is kept.

What is kept. The door decides by the sampler that ``OTEL_TRACES_SAMPLER`` names, before anything runs, and
the sampled flag goes with every call: extensions follow it. Of a trace that the sampler leaves out, the
router keeps its *own* spans after all where the request ended in an error, an attempt of it failed, or it was
slower than ``BEAMLINE_TRACE_SLOW_MS``; extensions have not recorded theirs then, because nobody could tell
them in time. ``BEAMLINE_TRACE_TAIL=false`` turns that off.

Memory: one list per request in flight, at most :data:`MAX_SPANS` long. What is kept goes to the SDK's batch
processor, whose queue is bounded and drops what a slow collector can't take; ``OTEL_BSP_*`` set it. Export
runs in its thread; everything here runs on the event loop. Attributes are ids, codes and counts, never
content.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from beamline_contract import __version__
from beamline_contract.errors import HTTP_STATUS, WireError
from beamline_contract.names import HEADER_TRACEPARENT
from beamline_sdk.tracing import TRACER, end, provider_of

from ..core.envelope import Envelope
from ..core.route import Call
from .telemetry import Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

MAX_SPANS: Final = 128
"""Calls of one request that become spans: a stream's windows are calls too. Further ones are counted."""
_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-([0-9a-f]{16})-([0-9a-f]{2}).*", re.DOTALL)
_SAMPLED: Final = "01"
_UNSAMPLED: Final = "00"


class _Call:
    """One attempt, as it was noted."""

    __slots__ = ("attempt", "began", "call", "ended", "error", "outcome", "span_id", "step", "why")

    def __init__(  # noqa: PLR0917 -- on the hot path
        self, span_id: int, call: Call, attempt: int, began: float, ended: float, error: str | None
    ) -> None:
        self.span_id = span_id
        self.call = call
        self.attempt = attempt
        self.began = began
        self.ended = ended
        self.error = error
        self.step: str | None = None
        self.why: str | None = None
        self.outcome: str | None = None


class RequestSpans:
    """The spans of one request (``core.spans.Spans``)."""

    __slots__ = (
        "_began", "_calls", "_dropped", "_envelope", "_failed", "_kept", "_offset_ns", "_parent", "_sampled",
        "_steps", "_traces",
    )  # fmt: skip

    def __init__(self, traces: Traces, envelope: Envelope, parent: str | None, sampled: bool) -> None:
        self._traces = traces
        self._envelope = envelope
        self._parent = parent
        self._sampled = sampled
        self._began = traces.clock()
        self._offset_ns = traces.wall_ns() - int(self._began * 1e9)
        self._calls: list[_Call] = []
        self._steps: list[tuple[Call, float]] = []
        self._dropped = 0
        self._failed = False
        self._kept: bool | None = None

    def call(  # noqa: PLR0917 -- as the protocol has it
        self, span_id: int, call: Call, attempt: int, began: float, ended: float, error: str | None
    ) -> None:
        """One attempt ended."""
        if error is not None:
            self._failed = True
        if len(self._calls) >= MAX_SPANS:
            self._dropped += 1
            return
        self._calls.append(_Call(span_id, call, attempt, began, ended, error))

    def step(
        self,
        name: str,
        call: Call,
        outcome: str,
        *,
        reason: str | None,
        attempts: int,
        why: str | None,
        began: float,
        seconds: float,
    ) -> None:
        """A step ended: its calls learn what they were for; one that was refused is a span without length."""
        if outcome in {"error", "skipped"}:
            self._failed = True
        if len(self._steps) < MAX_SPANS:
            self._steps.append((call, seconds))
        if attempts == 0:
            self.call(self._traces.span_id(), call, 0, began, began + seconds, reason)
        for noted in self._calls:
            if noted.call is call and noted.step is None:
                noted.step, noted.why, noted.outcome = name, why, outcome
        if self._kept is not None:  # a shadow step, which the request did not wait for
            self._flush()

    def ended(
        self, door: str, tenant: str | None, policy: str | None, provider: str | None, error: WireError | None
    ) -> None:
        """The request has left; what is kept is sent now."""
        now = self._traces.clock()
        seconds = now - self._began
        late = self._traces.tail and (error is not None or self._failed or seconds >= self._traces.slow_s)
        self._kept = self._sampled or late
        if not self._kept:
            self._calls, self._steps = [], []
            return
        attributes: dict[str, Any] = {
            "beamline.door": door,
            "beamline.request_id": self._envelope.request_id,
            "beamline.tenant_id": tenant,
            "beamline.policy": policy,
            "beamline.provider_id": provider,
            "beamline.status": "ok" if error is None else "error",
            "beamline.sampled": "head" if self._sampled else "tail",
            "beamline.spans_dropped": self._dropped or None,
            "error.type": None if error is None else error.code.value,
            "beamline.extension_id": None if error is None else error.extension_id,
        }
        broken = error is not None and HTTP_STATUS[error.code] >= 500
        self._traces.emit(
            "router.request",
            "server",
            self._offset_ns,
            trace_id=self._envelope.trace_id,
            span_id=int(self._envelope.traceparent[36:52], 16),
            parent=None if self._parent is None else int(self._parent, 16),
            times=(self._began, now),
            attributes=attributes,
            error=error.code.value if error is not None and broken else None,
        )
        self._traces.telemetry.example_of_door(door, self._envelope.trace_id, seconds)
        self._flush()

    def _flush(self) -> None:
        calls, self._calls = self._calls, []
        steps, self._steps = self._steps, []
        if not self._kept:
            return
        root = int(self._envelope.traceparent[36:52], 16)
        for noted in calls:
            call = noted.call
            self._traces.emit(
                "router.extension.invoke",
                "client",
                self._offset_ns,
                trace_id=self._envelope.trace_id,
                span_id=noted.span_id,
                parent=root,
                times=(noted.began, noted.ended),
                attributes={
                    "beamline.extension_id": call.extension_id,
                    "beamline.extension_type": call.type,
                    "beamline.attempt": noted.attempt,
                    "beamline.step": noted.step,
                    "beamline.why": noted.why,
                    "beamline.outcome": noted.outcome,
                    "beamline.version": call.version,
                    "messaging.system": "nats",
                    "messaging.destination.name": call.subject,
                    "error.type": noted.error,
                },
                error=noted.error,
            )
        for call, seconds in steps:
            self._traces.telemetry.example_of_step(call.extension_id, self._envelope.trace_id, seconds)


class Traces:
    """Traces of one router. ``clock`` is monotonic and ``wall_ns`` Unix time in nanoseconds."""

    def __init__(
        self,
        provider: TracerProvider,
        telemetry: Telemetry,
        *,
        bits: Callable[[int], int],
        tail: bool = True,
        slow_ms: float = 10_000.0,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        from opentelemetry import trace  # noqa: PLC0415 -- only where traces are asked for
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

        self.tail = tail
        self.slow_s = slow_ms / 1000.0
        self.clock = clock
        self.wall_ns = wall_ns
        self.telemetry = telemetry
        self._bits = bits
        self._provider = provider
        self._trace = trace
        self._readable: type[ReadableSpan] = ReadableSpan
        self._scope = InstrumentationScope(TRACER)
        self._kinds = {"server": trace.SpanKind.SERVER, "client": trace.SpanKind.CLIENT}

    def span_id(self) -> int:
        """A new one."""
        return self._bits(64) or 1

    def begin(self, envelope: Envelope, headers: Mapping[str, str]) -> None:
        """A request came in: decides on its flag, and hangs its spans into the envelope."""
        found = None
        if (given := headers.get(HEADER_TRACEPARENT)) is not None and envelope.trace_id in given:
            found = _PARENT.fullmatch(given)
        parent = None if found is None else found[1]
        sampled = self._sampled(int(envelope.trace_id, 16), found)
        envelope.traceparent = f"{envelope.traceparent[:-2]}{_SAMPLED if sampled else _UNSAMPLED}"
        envelope.spans = RequestSpans(self, envelope, parent, sampled)

    def emit(
        self,
        name: str,
        kind: str,
        offset_ns: int,
        *,
        trace_id: str,
        span_id: int,
        parent: int | None,
        times: tuple[float, float],
        attributes: Mapping[str, Any],
        error: str | None,
    ) -> None:
        """Hands one span to the exporter's queue. ``offset_ns`` turns ``times`` into Unix time."""
        trace = self._trace
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        trace_number = int(trace_id, 16)
        began, ended = (offset_ns + int(at * 1e9) for at in times)
        span = self._readable(
            name,
            context=trace.SpanContext(trace_number, span_id, is_remote=False, trace_flags=flags),
            parent=None
            if parent is None
            else trace.SpanContext(trace_number, parent, is_remote=True, trace_flags=flags),
            resource=self._provider.resource,
            attributes={key: value for key, value in attributes.items() if value is not None},
            kind=self._kinds[kind],
            status=trace.Status(trace.StatusCode.UNSET)
            if error is None
            else trace.Status(trace.StatusCode.ERROR, error),
            start_time=began,
            end_time=max(began, ended),
            instrumentation_scope=self._scope,
        )
        self._provider._active_span_processor.on_end(span)

    async def close(self) -> None:
        """Sends what is left, bounded. Never raises."""
        await end(self._provider)

    def _sampled(self, trace_id: int, parent: re.Match[str] | None) -> bool:
        trace = self._trace
        context = None
        if parent is not None:
            flags = trace.TraceFlags(int(parent[2], 16))
            remote = trace.SpanContext(trace_id, int(parent[1], 16), is_remote=True, trace_flags=flags)
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        decided = self._provider.sampler.should_sample(context, trace_id, "router.request").decision
        return decided.name == "RECORD_AND_SAMPLE"


def traces_of(
    telemetry: Telemetry, instance: str, bits: Callable[[int], int], *, tail: bool, slow_ms: float
) -> Traces | None:
    """Traces as the environment asks for them; None where it does not."""
    named = {"service.version": __version__, "service.instance.id": instance}
    provider = provider_of("beamline-router", named)
    return None if provider is None else Traces(provider, telemetry, bits=bits, tail=tail, slow_ms=slow_ms)
