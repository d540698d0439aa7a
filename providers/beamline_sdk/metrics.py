"""The metrics of an extension process.

``provider_requests_total{provider_id,status}``, ``provider_latency_seconds{provider_id}`` and
``provider_tokens_total{provider_id,type}`` count what a provider executed; status is ``success`` or
``error``. What a router counts as ``extension_requests_total`` is the same traffic seen from the other end,
so an extension's own numbers go by names of their own, ``beamline_runtime_*``, and a sum over jobs never
counts a request twice. Refused work (expired, over the limit, malformed, given up) was not executed and
appears only in ``beamline_runtime_refused_total``.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from beamline_contract.names import ExtensionType

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
REFUSALS: Final = ("expired", "overloaded", "malformed", "cancelled", "not_ready")


class RuntimeMetrics:
    """Counters of one extension, their label values bound once: the hot path only adds."""

    def __init__(
        self, registry: CollectorRegistry, extension_id: str, kind: ExtensionType, version: str
    ) -> None:
        requests = Counter(
            "beamline_runtime_requests",
            "Requests executed, by outcome.",
            ("extension_id", "status"),
            registry=registry,
        )
        refused = Counter(
            "beamline_runtime_refused",
            "Requests refused unexecuted.",
            ("extension_id", "reason"),
            registry=registry,
        )
        duration = Histogram(
            "beamline_runtime_request_duration_seconds",
            "Time the extension's own code took.",
            ("extension_id",),
            buckets=BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "beamline_runtime_in_flight", "Requests being executed.", ("extension_id",), registry=registry
        ).labels(extension_id)
        self.waiting = Gauge(
            "beamline_runtime_waiting",
            "Requests waiting for a free place.",
            ("extension_id",),
            registry=registry,
        ).labels(extension_id)
        Info("beamline_runtime", "What runs here.", registry=registry).info(
            {"extension_id": extension_id, "type": kind, "version": version}
        )
        self._ok = requests.labels(extension_id, "ok")
        self._rejected = requests.labels(extension_id, "rejected")
        self._error = requests.labels(extension_id, "error")
        self._duration = duration.labels(extension_id)
        self._refused = {reason: refused.labels(extension_id, reason) for reason in REFUSALS}
        self._provider = _ProviderMetrics(registry, extension_id) if kind == "provider" else None

    def refused(self, reason: str) -> None:
        """A request answered with an error before any work; ``reason`` is one of :data:`REFUSALS`."""
        self._refused[reason].inc()

    def executed(
        self, status: str, seconds: float, tokens: tuple[int, int] | None, trace_id: str | None = None
    ) -> None:
        """A request that ran. ``status`` is ok, rejected or error; ``tokens`` are a provider's, prompt and
        completion; ``trace_id`` is that of a sampled trace and becomes the exemplar.
        """
        exemplar = None if trace_id is None else {"trace_id": trace_id}
        {"ok": self._ok, "rejected": self._rejected}.get(status, self._error).inc()
        self._duration.observe(seconds, exemplar)
        if self._provider is not None:
            self._provider.executed(status, seconds, tokens, exemplar)


class _ProviderMetrics:
    def __init__(self, registry: CollectorRegistry, provider_id: str) -> None:
        requests = Counter(
            "provider_requests",
            "Requests to the provider, by outcome.",
            ("provider_id", "status"),
            registry=registry,
        )
        tokens = Counter(
            "provider_tokens",
            "Tokens as the provider counts them.",
            ("provider_id", "type"),
            registry=registry,
        )
        self._latency = Histogram(
            "provider_latency_seconds",
            "Time the provider took to answer.",
            ("provider_id",),
            buckets=BUCKETS,
            registry=registry,
        ).labels(provider_id)
        self._success = requests.labels(provider_id, "success")
        self._error = requests.labels(provider_id, "error")
        self._prompt = tokens.labels(provider_id, "prompt")
        self._completion = tokens.labels(provider_id, "completion")

    def executed(
        self, status: str, seconds: float, tokens: tuple[int, int] | None, exemplar: dict[str, str] | None
    ) -> None:
        (self._success if status == "ok" else self._error).inc()
        self._latency.observe(seconds, exemplar)
        if tokens is not None:
            self._prompt.inc(tokens[0])
            self._completion.inc(tokens[1])
