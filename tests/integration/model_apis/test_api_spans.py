"""The span of a call: its name, OpenTelemetry's attributes, its parent, and nothing of what was said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from beamline_sdk import ExtensionError
from harness.model_api import FakeApi, error


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Collects spans; the process's own provider is left alone."""
    collected = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(collected))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield collected
    provider.shutdown()


async def test_a_call_is_a_span_below_the_requests(
    api: FakeApi, asked: Any, exporter: InMemorySpanExporter
) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await asked.ask("canary", headers={"traceparent": parent}, parameters={"temperature": 0})
    [span] = exporter.get_finished_spans()
    assert span.name == f"provider.{asked.name}_x.api_call"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == asked.name
    assert attributes["gen_ai.request.model"] == asked.model
    assert attributes["gen_ai.request.temperature"] == 0
    assert attributes["gen_ai.response.model"] == asked.model
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (11, 3)
    assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", api.port)
    assert "canary" not in str(attributes)


async def test_a_failed_call_is_a_span_with_its_error(
    api: FakeApi, asked: Any, exporter: InMemorySpanExporter
) -> None:
    api.says(error(529, message="sk-canary"))
    with pytest.raises(ExtensionError):
        await asked.stream()
    [span] = exporter.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("UNAVAILABLE", 529)
    assert span.status.status_code is trace.StatusCode.ERROR
    assert not span.events
