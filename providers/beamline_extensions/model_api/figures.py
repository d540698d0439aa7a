"""What a provider of a model API counts, under the names that dashboards know and under OpenTelemetry's.

``{api}_provider_requests_total{status}`` has ``success``, ``api_error`` (whatever the API or the way to it
did), ``decode_error`` (an answer that is not what its reference says) and ``cancelled`` (the caller left).
``gen_ai_client_*`` are the semantic conventions for generative clients. Models come from callers, so their
number as label values is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .prices import Price, cost_usd

SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Buckets of ``gen_ai.client.operation.duration`` (OpenTelemetry semantic conventions)."""
TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
"""Buckets of ``gen_ai.client.token.usage``, up to the largest context windows."""
STATUSES: Final = ("success", "api_error", "decode_error", "cancelled")
MAX_MODELS: Final = 64

HEADROOM: Final[Mapping[str, tuple[str, str]]] = {
    "x-ratelimit-remaining-requests": ("remaining", "requests"),
    "x-ratelimit-remaining-tokens": ("remaining", "tokens"),
    "x-ratelimit-limit-requests": ("limit", "requests"),
    "x-ratelimit-limit-tokens": ("limit", "tokens"),
    "anthropic-ratelimit-requests-remaining": ("remaining", "requests"),
    "anthropic-ratelimit-tokens-remaining": ("remaining", "tokens"),
    "anthropic-ratelimit-input-tokens-remaining": ("remaining", "input_tokens"),
    "anthropic-ratelimit-output-tokens-remaining": ("remaining", "output_tokens"),
    "anthropic-ratelimit-requests-limit": ("limit", "requests"),
    "anthropic-ratelimit-tokens-limit": ("limit", "tokens"),
    "anthropic-ratelimit-input-tokens-limit": ("limit", "input_tokens"),
    "anthropic-ratelimit-output-tokens-limit": ("limit", "output_tokens"),
}
"""Answer headers that say how much of a limit is left."""


class _ModelFigures:
    def __init__(self, api: str, model: str, duration: Histogram, usage: Histogram) -> None:
        self.duration = duration.labels("chat", api, model)
        self.prompt = usage.labels("chat", api, model, "input")
        self.completion = usage.labels("chat", api, model, "output")


class ApiFigures:
    """Counters of one provider, label values bound once."""

    def __init__(self, registry: CollectorRegistry, api: str, provider_id: str) -> None:
        self._api = api
        requests = Counter(
            f"{api}_provider_requests", "Calls of the model API, by outcome.", ("status",), registry=registry
        )
        self._requests = {status: requests.labels(status) for status in STATUSES}
        self._duration = Histogram(
            f"{api}_provider_request_duration_seconds", "Time of a call of the model API.", registry=registry
        )
        tokens = Counter(
            f"{api}_provider_tokens", "Tokens as the model API counts them.", ("type",), registry=registry
        )
        self._prompt, self._completion = tokens.labels("prompt"), tokens.labels("completion")
        self._cost = Counter(
            "provider_cost_usd",
            "US dollars at the configured prices; models without one cost nothing here.",
            ("provider_id",),
            registry=registry,
        ).labels(provider_id)
        self._unpriced = Counter(
            "provider_unpriced_requests",
            "Calls of models without a configured price.",
            ("provider_id",),
            registry=registry,
        ).labels(provider_id)
        self._refused = Counter(
            f"{api}_provider_rate_limited",
            "Requests refused by our own limits, before any call.",
            registry=registry,
        )
        self._headroom = {
            kind: Gauge(
                f"{api}_provider_ratelimit_{kind}",
                f"The API's rate limit as it reported it last: {kind}.",
                ("type",),
                registry=registry,
            )
            for kind in ("remaining", "limit")
        }
        names = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
        self._gen_ai_duration = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "gen_ai.client.operation.duration: time of a call of the model API, by model.",
            names,
            buckets=SECONDS,
            registry=registry,
        )
        self._gen_ai_usage = Histogram(
            "gen_ai_client_token_usage",
            "gen_ai.client.token.usage: tokens of one answer, by model.",
            (*names, "gen_ai_token_type"),
            buckets=TOKENS,
            registry=registry,
        )
        self._models: dict[str, _ModelFigures] = {}

    def refused(self) -> None:
        """Our own limit said no."""
        self._refused.inc()

    def called(self, model: str, status: str, seconds: float, trace_id: str | None = None) -> None:
        """A call is over. ``status`` is one of :data:`STATUSES`; ``trace_id``, of a sampled trace, becomes
        the exemplar.
        """
        exemplar = None if trace_id is None else {"trace_id": trace_id}
        self._requests[status].inc()
        self._duration.observe(seconds, exemplar)
        self._of(model).duration.observe(seconds, exemplar)

    def used(self, model: str, prompt: int, completion: int, price: Price | None) -> None:
        """What an answer has used."""
        self._prompt.inc(prompt)
        self._completion.inc(completion)
        figures = self._of(model)
        figures.prompt.observe(prompt)
        figures.completion.observe(completion)
        if price is None:
            self._unpriced.inc()
        else:
            self._cost.inc(cost_usd(price, prompt, completion))

    def headers(self, headers: Mapping[str, str]) -> None:
        """Takes the rate-limit headers of an answer."""
        for name in headers:
            known = HEADROOM.get(name)
            if known is not None and headers[name].isdecimal():
                self._headroom[known[0]].labels(known[1]).set(int(headers[name][:18]))

    def _of(self, model: str) -> _ModelFigures:
        found = self._models.get(model)
        if found is None:
            name = model if len(self._models) < MAX_MODELS else "other"
            found = _ModelFigures(self._api, name, self._gen_ai_duration, self._gen_ai_usage)
            if len(self._models) < MAX_MODELS:
                self._models[model] = found
        return found
