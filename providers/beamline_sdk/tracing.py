"""Spans of an extension's process, by OpenTelemetry, where it is installed (``beamline[tracing]``) and asked
for.

Asked for means: ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` is set, or
``OTEL_TRACES_EXPORTER`` names ``otlp`` or ``console``; ``OTEL_SDK_DISABLED=true`` and
``OTEL_TRACES_EXPORTER=none`` say no. Otherwise nothing is imported, and a request costs one comparison more.

Each request that is executed is one span ``router.extension.{type}``. Its parent is the ``traceparent`` of
the request's headers; ``tracestate`` and ``baggage`` come along. While it runs it is the current span: what
an author opens on ``opentelemetry.trace.get_tracer("beamline")`` becomes its child. Attributes are ids and
outcomes, each at most :data:`MAX_CHARS` long: never a prompt, an output or a key.

Export is OTLP over HTTP, in batches, from a thread of the OpenTelemetry SDK; all its ``OTEL_*`` variables
hold. A collector that is away costs spans and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from beamline_contract.names import ExtensionType

from .request import ExtensionRequest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = structlog.get_logger()

MAX_CHARS: Final = 128
TRACER: Final = "beamline"
_END_SECONDS: Final = 2.0
_KEPT_HEADERS: Final = ("traceparent", "tracestate", "baggage")
_MAX_HEADER_CHARS: Final = 8192
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Tracing(Protocol):
    """What the runtime needs."""

    def span(self, request: ExtensionRequest, extension_id: str) -> Any:
        """A context manager around the execution of ``request``."""

    def ended(self, status: str, error: str | None, tokens: tuple[int, int] | None) -> None:
        """The outcome of the request whose span is current; ``error`` is a code of the closed list."""

    def trace_id(self) -> str | None:
        """The trace of the request whose span is current, where it is sampled: for exemplars."""

    async def close(self) -> None:
        """Sends what is left, bounded. Never raises."""


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for spans."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter in {"otlp", "console"}
    return any(environ.get(name, "").strip() for name in _ENDPOINTS)


def configure(
    kind: ExtensionType, extension_id: str, version: str, environ: Mapping[str, str] | None = None
) -> Tracing | None:
    """Spans as the environment asks for them; None where it does not, or where OpenTelemetry is missing."""
    named = {"service.version": version, "beamline.extension_id": extension_id}
    provider = provider_of(f"beamline-{extension_id}", named, environ)
    return None if provider is None else _Spans(provider, kind)


def provider_of(
    service: str, attributes: Mapping[str, str], environ: Mapping[str, str] | None = None
) -> TracerProvider | None:
    """The tracer provider of a process as the environment asks for it; None as for :func:`configure`.

    ``service`` is the ``service.name`` where the environment gives none.
    """
    environ = os.environ if environ is None else environ
    if not wanted(environ):
        return None
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        log.warning("tracing.unavailable", error="install 'beamline[tracing]' to send the spans asked for")
        return None
    try:
        return _provider(service, attributes, environ)
    except Exception as error:  # noqa: BLE001 -- a wrong OTEL_* variable must not stop a process
        log.warning("tracing.unavailable", error=type(error).__name__)
        return None


def _provider(service: str, attributes: Mapping[str, str], environ: Mapping[str, str]) -> TracerProvider:
    # Imported here: without OTEL_* nobody shall pay for it.
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SpanExporter,
    )

    exporter: SpanExporter
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "console":
        exporter = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        exporter = OTLPSpanExporter()
    named = dict(attributes)
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        named["service.name"] = service
    provider = TracerProvider(
        resource=Resource.create(named),
        span_limits=SpanLimits(max_attributes=64, max_attribute_length=1024),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
    return provider


class _Spans:
    def __init__(self, provider: TracerProvider, kind: ExtensionType) -> None:
        from opentelemetry import context, propagate, trace  # noqa: PLC0415

        self._provider = provider
        self._tracer = provider.get_tracer(TRACER)
        self._name = f"router.extension.{kind}"
        self._kind = kind
        self._context = context
        self._extract = propagate.extract
        self._trace = trace

    @contextmanager
    def span(self, request: ExtensionRequest, extension_id: str) -> Iterator[None]:
        carrier = {
            name: request.headers[name]
            for name in _KEPT_HEADERS
            if name in request.headers and len(request.headers[name]) <= _MAX_HEADER_CHARS
        }
        attributes: dict[str, str | int] = {
            "beamline.extension_id": extension_id[:MAX_CHARS],
            "beamline.extension_type": self._kind,
            "beamline.request_id": request.request_id[:MAX_CHARS],
            "beamline.tenant_id": request.tenant_id[:MAX_CHARS],
            "beamline.attempt": request.attempt,
        }
        token = self._context.attach(self._extract(carrier))
        try:
            with self._tracer.start_as_current_span(
                self._name,
                kind=self._trace.SpanKind.SERVER,
                attributes={name: value for name, value in attributes.items() if value != ""},
                record_exception=False,  # its text may hold a prompt or a key
                set_status_on_exception=False,
            ):
                yield
        finally:
            self._context.detach(token)

    def ended(self, status: str, error: str | None, tokens: tuple[int, int] | None) -> None:
        span = self._trace.get_current_span()
        span.set_attribute("beamline.status", status)
        if tokens is not None:
            span.set_attribute("gen_ai.usage.input_tokens", tokens[0])
            span.set_attribute("gen_ai.usage.output_tokens", tokens[1])
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(self._trace.StatusCode.ERROR, error)

    def trace_id(self) -> str | None:
        context = self._trace.get_current_span().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid and context.trace_flags.sampled else None

    async def close(self) -> None:
        await end(self._provider)


async def end(provider: TracerProvider) -> None:
    """Sends what is left, bounded by two seconds. Never raises."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def send() -> None:
        try:
            provider.shutdown()  # sends what is left
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended.set)

    # A thread of its own and not `to_thread`: the loop's end would wait for that, and an exporter whose
    # collector is away tries for many seconds.
    threading.Thread(target=send, name="end of tracing", daemon=True).start()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await ended.wait()
    except TimeoutError:
        log.warning("tracing.incomplete", error="the collector did not take the last spans in time")
