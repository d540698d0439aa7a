"""Which traces a router keeps, and what is in them; OpenTelemetry's SDK with its exporter in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from beamline_contract.errors import ErrorCode, WireError
from beamline_router.core.envelope import Envelope, open_envelope
from beamline_router.core.request import Answer
from beamline_router.edges.telemetry import Telemetry
from beamline_router.edges.traces import MAX_SPANS, Traces
from beamline_sdk import exposition

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


class World:
    """Traces with a clock of the test's own."""

    def __init__(self, sampler: Sampler = DEFAULT_ON, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.now = 100.0
        self.telemetry = Telemetry(wall=lambda: 1_700_000_000.0)
        numbers = count(1)
        self.bits: Callable[[int], int] = lambda _: next(numbers)
        self.traces = Traces(
            provider,
            self.telemetry,
            bits=self.bits,
            clock=lambda: self.now,
            wall_ns=lambda: 1_700_000_000_000_000_000 + int((self.now - 100.0) * 1e9),
            **settings,
        )

    def begin(self, **headers: str) -> Envelope:
        envelope = open_envelope(headers, self.bits)
        self.traces.begin(envelope, headers)
        return envelope

    def attempt(
        self,
        envelope: Envelope,
        call: Any,
        *,
        error: str | None = None,
        seconds: float = 0.25,
        number: int = 1,
    ) -> None:
        assert envelope.spans is not None
        began, self.now = self.now, self.now + seconds
        envelope.spans.call(self.bits(64), call, number, began, self.now, error)

    def step(self, envelope: Envelope, call: Any, outcome: str, **said: Any) -> None:
        given = {
            "reason": None,
            "attempts": 1,
            "why": None,
            "began": self.now - 0.25,
            "seconds": 0.25,
            **said,
        }
        assert envelope.spans is not None
        envelope.spans.step("choose", call, outcome, **given)

    def end(self, envelope: Envelope, error: WireError | None = None) -> list[ReadableSpan]:
        assert envelope.spans is not None
        envelope.spans.ended("http", "acme", "default", "gpt", error)
        return list(self.exporter.get_finished_spans())


def extension(extension_id: str = "gpt", kind: str = "provider") -> Any:
    return SimpleNamespace(
        extension_id=extension_id, type=kind, subject=f"beamline.x.{extension_id}.v1", version=None
    )


def caller(flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{CALLER}-{flags}"}


def test_the_request_is_below_the_caller_and_each_attempt_below_the_request() -> None:
    world, gpt = World(), extension()
    envelope = world.begin(**caller())
    world.attempt(envelope, gpt, error="UNAVAILABLE")
    world.attempt(envelope, gpt, number=2)
    world.step(envelope, gpt, "ok", attempts=2, why="weighted")
    root, first, second = world.end(envelope)
    assert (root.name, root.kind) == ("router.request", SpanKind.SERVER)
    assert root.parent is not None
    assert root.context is not None
    assert (f"{root.context.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, CALLER)
    assert f"{root.context.span_id:016x}" == envelope.traceparent.split("-")[2], "the caller is told this id"
    for attempt, error in ((first, "UNAVAILABLE"), (second, None)):
        assert (attempt.name, attempt.kind) == ("router.extension.invoke", SpanKind.CLIENT)
        assert attempt.parent is not None
        assert attempt.parent.span_id == root.context.span_id
        assert attempt.attributes is not None
        assert attempt.attributes.get("error.type") == error
        assert attempt.attributes["beamline.step"] == "choose"
        assert attempt.attributes["beamline.why"] == "weighted"
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert (root.start_time, first.start_time) == (1_700_000_000_000_000_000,) * 2
    assert (root.end_time, second.end_time) == (1_700_000_000_500_000_000,) * 2


KEEPING = [
    pytest.param(DEFAULT_ON, {}, None, {}, "head", "01", id="by default everything"),
    pytest.param(DEFAULT_ON, caller("01"), None, {}, "head", "01", id="what the caller samples"),
    pytest.param(DEFAULT_ON, caller("00"), None, {}, None, "00", id="not what the caller leaves out"),
    pytest.param(ALWAYS_ON, caller("00"), None, {}, "head", "01", id="unless the sampler asks no caller"),
    pytest.param(ALWAYS_OFF, {}, None, {}, None, "00", id="nothing where the sampler says so"),
    pytest.param(ALWAYS_OFF, {}, "UNAVAILABLE", {}, "tail", "00", id="an error after all"),
    pytest.param(ALWAYS_OFF, {}, "UNAVAILABLE", {"tail": False}, None, "00", id="not with the tail off"),
    pytest.param(ALWAYS_OFF, {}, None, {"slow_ms": 250}, "tail", "00", id="a slow one after all"),
    pytest.param(ALWAYS_OFF, {}, None, {"slow_ms": 251}, None, "00", id="not one that is just fast enough"),
    pytest.param(
        ParentBased(ALWAYS_OFF), caller("01"), None, {}, "head", "01", id="a share of new traces alone"
    ),
]


@pytest.mark.parametrize(("sampler", "headers", "error", "settings", "kept", "flags"), KEEPING)
def test_what_is_kept(  # noqa: PLR0917 -- the columns of the table
    sampler: Sampler,
    headers: dict[str, str],
    error: str | None,
    settings: dict[str, Any],
    kept: str | None,
    flags: str,
) -> None:
    world = World(sampler, **settings)
    envelope = world.begin(**headers)
    assert envelope.traceparent[-2:] == flags, "extensions are told the door's decision"
    world.attempt(envelope, extension())
    world.step(envelope, extension(), "ok")
    spans = world.end(envelope, None if error is None else WireError.of(ErrorCode[error], "no"))
    if kept is None:
        assert spans == []
        assert b"trace_id" not in exposition.render(world.telemetry.registry, OPENMETRICS)[0]
    else:
        assert spans[0].attributes is not None
        assert spans[0].attributes["beamline.sampled"] == kept
        assert len(spans) == 2


def test_an_attempt_that_failed_keeps_the_trace_of_a_request_that_was_answered() -> None:
    world = World(ALWAYS_OFF)
    envelope = world.begin()
    world.attempt(envelope, extension("first"), error="INTERNAL")
    world.attempt(envelope, extension("second"))
    assert [span.name for span in world.end(envelope)] == ["router.request", *["router.extension.invoke"] * 2]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        pytest.param("UNAVAILABLE", StatusCode.ERROR, id="our side's fault is an error"),
        pytest.param("VALIDATION_REJECTED", StatusCode.UNSET, id="a rejection is what was asked for"),
        pytest.param("INVALID_ARGUMENT", StatusCode.UNSET, id="so is a bad request"),
    ],
)
def test_the_message_of_an_error_stays_out_and_its_code_is_an_attribute(
    code: str, status: StatusCode
) -> None:
    world = World()
    envelope = world.begin()
    (root,) = world.end(envelope, WireError.of(ErrorCode[code], "a card number 4111"))
    assert root.attributes is not None
    assert root.attributes["error.type"] == code
    assert root.status.status_code is status
    assert "4111" not in root.to_json()


def test_a_step_that_was_refused_is_a_span_without_an_attempt() -> None:
    world = World()
    envelope = world.begin()
    world.step(envelope, extension("away"), "error", reason="UNAVAILABLE", attempts=0, why="ordered")
    _, refused = world.end(envelope)
    assert refused.attributes is not None
    assert (refused.attributes["beamline.attempt"], refused.attributes["error.type"]) == (0, "UNAVAILABLE")


def test_a_shadow_step_that_ends_after_its_request_is_sent_when_it_ends() -> None:
    world, shadow = World(), extension("shadow", "validator")
    envelope = world.begin()
    assert [span.name for span in world.end(envelope)] == ["router.request"]
    world.attempt(envelope, shadow)
    world.step(envelope, shadow, "ok", why="shadow")
    _, late = world.exporter.get_finished_spans()
    assert late.attributes is not None
    assert late.attributes["beamline.why"] == "shadow"


def test_a_request_of_very_many_calls_has_bounded_spans_and_says_how_many_are_missing() -> None:
    world = World()
    envelope = world.begin()
    for _ in range(MAX_SPANS + 5):
        world.attempt(envelope, extension())
    root, *calls = world.end(envelope)
    assert len(calls) == MAX_SPANS
    assert root.attributes is not None
    assert root.attributes["beamline.spans_dropped"] == 5


def test_a_kept_trace_is_the_exemplar_of_its_histograms_in_openmetrics_alone() -> None:
    world, gpt = World(), extension()
    envelope = world.begin()
    world.attempt(envelope, gpt)
    world.step(envelope, gpt, "ok")
    world.telemetry.step("gpt", "provider", "ok", None, 0.25)
    world.telemetry.request("http", Answer("gpt", "", {}, {}, [], "default"), 0.25)
    world.end(envelope)
    text, kind = exposition.render(world.telemetry.registry, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text")
    shown = [line.split(" # ") for line in text.decode().splitlines() if " # " in line]
    assert {(line.partition("{")[0], 'le="0.25"' in line) for line, _ in shown} == {
        ("router_request_duration_seconds_bucket", True),
        ("extension_request_duration_seconds_bucket", True),
        ("provider_latency_seconds_bucket", True),
        ("gen_ai_client_operation_duration_seconds_bucket", True),
    }
    assert {example.split(" ")[0] for _, example in shown} == {f'{{trace_id="{envelope.trace_id}"}}'}
    plain, _ = exposition.render(world.telemetry.registry, "text/plain")
    assert b" # " not in plain.replace(b"# HELP", b"").replace(b"# TYPE", b"")


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=x", "text/plain;version=..", "", "?;;=,"]
)
def test_an_accept_header_without_sense_gets_the_plain_format(accept: str) -> None:
    text, kind = exposition.render(Telemetry().registry, accept)
    assert text.startswith(b"# HELP")
    assert "text" in kind


def test_a_router_that_is_not_asked_for_traces_does_not_import_opentelemetry() -> None:
    code = (
        "import sys; import beamline_router.app as app\n"
        "assert app.traces_of(None, 'i', None, tail=True, slow_ms=1) is None\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
