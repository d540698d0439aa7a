"""The span of one call, ``provider.{id}.api_call``, with OpenTelemetry's names for generative clients.

OpenTelemetry is an extra: without it, or without a tracer provider, this costs nothing. No prompt and no
answer is ever an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

try:
    from opentelemetry import propagate, trace
except ImportError:  # the extra `tracing` is not installed
    _INSTALLED = False
else:
    _INSTALLED = True


class CallSpan:
    """One span, or none."""

    def __init__(self, span: Any | None) -> None:
        self._span = span

    @property
    def trace_id(self) -> str | None:
        """The trace, where it is sampled."""
        context = None if self._span is None else self._span.get_span_context()
        return f"{context.trace_id:032x}" if context is not None and context.trace_flags.sampled else None

    def end(self, *, error: str | None = None, **attributes: str | int | float | Sequence[str]) -> None:
        """Ends it; attribute names have ``_`` for ``.`` after ``gen_ai``'s parts, as :data:`NAMES` says."""
        if self._span is None:
            return
        for name, value in attributes.items():
            self._span.set_attribute(NAMES[name], value)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.Status(trace.StatusCode.ERROR))
        self._span.end()


NAMES: Mapping[str, str] = {
    "response_model": "gen_ai.response.model",
    "response_id": "gen_ai.response.id",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "status": "http.response.status_code",
}
"""Attributes that are known only at the end."""
_NONE = CallSpan(None)


def begin(
    provider_id: str,
    api: str,
    body: Mapping[str, Any],
    *,
    server: tuple[str, int],
    headers: Mapping[str, str],
) -> CallSpan:
    """Starts the span below the current one, or below the request's ``traceparent`` where there is none."""
    if not _INSTALLED or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return _NONE
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": api,
        "gen_ai.system": api,
        "gen_ai.request.model": str(body["model"]),
        "server.address": server[0],
        "server.port": server[1],
    }
    for name in ("max_tokens", "temperature", "top_p"):
        value = body.get(name)
        if isinstance(value, int | float):
            attributes[f"gen_ai.request.{name}"] = value
    context = None
    if not trace.get_current_span().get_span_context().is_valid:
        context = propagate.extract(dict(headers))
    span = trace.get_tracer("beamline").start_span(
        f"provider.{provider_id}.api_call", context, trace.SpanKind.CLIENT, attributes
    )
    return CallSpan(span)
