"""Answers what was answered before: a pre step that looks up, and a post step that stores.

A router calls one extension per step, and an answer exists only after the provider, so there are two
Extensions. They share one memory and therefore one process: ``response_cache`` (pre) has the workload and
serves
its own subject; from ``start`` to ``stop`` it also serves ``response_cache_store`` (post), whose Extension
has no workload. Each has a connection and a queue group of its own.

The key is made by both steps from what the router sends them, never from what a caller could forge, and the
step
that stores sees what the provider was asked. A hit is marked in the context, so that the answer that comes
out of the cache does not go in again with a new time.

With several replicas each has its own memory and hears of its share of the answers: still right, less often a
hit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from beamline_contract.names import derive_subject
from beamline_sdk import ExtensionRequest, Patch, Post, Pre, Setup
from beamline_sdk.runtime import serve
from beamline_sdk.settings import RuntimeSettings

from .config import CacheConfig
from .entries import MARK, Entries, key_of

STORE: Final = "response_cache_store"
RESULTS: Final = ("hit", "miss", "bypass")
STORED: Final = ("stored", "hit", "bypass", "streamed", "tool_call", "unfinished", "too_long")

_NOT_AN_ANSWER: Final = frozenset({"window", "message"})

log = structlog.get_logger()


class CacheMetrics:
    """``response_cache_requests_total{result}``, ``response_cache_answers_total{result}`` and gauges of
    size."""

    def __init__(self, registry: CollectorRegistry, entries: Entries) -> None:
        requests = Counter("response_cache_requests", "Look-ups, by result.", ("result",), registry=registry)
        answers = Counter(
            "response_cache_answers", "Answers seen, by result.", ("result",), registry=registry
        )
        self.requests = {result: requests.labels(result) for result in RESULTS}
        self.answers = {result: answers.labels(result) for result in STORED}
        for name, words, value in (
            ("response_cache_entries", "Answers kept.", lambda: len(entries)),
            ("response_cache_bytes", "Bytes of the answers kept.", lambda: entries.size),
            ("response_cache_evicted", "Answers that went before their time.", lambda: entries.evicted),
        ):
            Gauge(name, words, registry=registry).set_function(value)


class ResponseCache(Pre[CacheConfig]):
    """Answers from memory where the same tenant asked the same before."""

    name = "response_cache"
    version = "1.0.0"
    description = "Answers what was answered before; response_cache_store remembers it."
    config_model = CacheConfig

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.entries = Entries()
        self.metrics = CacheMetrics(CollectorRegistry(), self.entries)
        self.store = ResponseCacheStore(self, clock)
        self._clock = clock
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def initialize(self, setup: Setup) -> None:
        self.metrics = CacheMetrics(setup.registry, self.entries)

    async def start(self) -> None:
        self._serving = asyncio.create_task(serve(self.store, store_settings(), stop=self._stop))

    async def health_check(self) -> str | None:
        if self._serving is not None and self._serving.done() and not self._stop.is_set():
            return "the step that stores answers has ended"
        return None

    async def stop(self) -> None:
        self._stop.set()
        if self._serving is not None:
            with suppress(asyncio.CancelledError):
                await self._serving

    async def handle(self, request: ExtensionRequest, config: CacheConfig) -> Patch:
        key = None if request.context.get(MARK) == "bypass" else key_of(request, config)
        if key is None:
            self.metrics.requests["bypass"].inc()
            return Patch(context={MARK: "bypass"})
        entry = self.entries.get(key, self._clock())
        if entry is None:
            self.metrics.requests["miss"].inc()
            return Patch(context={MARK: "miss"})
        self.metrics.requests["hit"].inc()
        return Patch(output=entry.output, context={MARK: "hit"})


class ResponseCacheStore(Post[CacheConfig]):
    """Remembers a provider's answer for :class:`ResponseCache`."""

    name = STORE
    version = "1.0.0"
    description = "Remembers answers for response_cache."
    config_model = CacheConfig
    max_match_length = 1  # changes no text; a stream's last character waits, so that its end is seen

    def __init__(self, cache: ResponseCache, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._clock = clock

    async def handle(self, request: ExtensionRequest, config: CacheConfig) -> Patch:
        if request.part in _NOT_AN_ANSWER:
            return Patch()
        result, patch = self._seen(request, config)
        self._cache.metrics.answers[result].inc()
        return patch

    def _seen(self, request: ExtensionRequest, config: CacheConfig) -> tuple[str, Patch]:
        mark = request.context.get(MARK)
        key = key_of(request, config)
        if key is None or mark == "bypass":
            return "bypass", Patch()
        if mark == "hit":
            entry = self._cache.entries.get(key, self._clock())
            told = {"cache": "hit"} if entry is None else {"cache": "hit", "model": entry.model}
            return "hit", Patch(metadata=told)
        fault = _not_whole(request)
        if fault is not None:
            return fault, Patch()
        model = request.metadata.get("model")
        kept = self._cache.entries.put(
            key, request.output or "", model if isinstance(model, str) else "", self._clock(), config
        )
        return ("stored" if kept else "too_long"), Patch(metadata={"cache": "miss"})


def _not_whole(request: ExtensionRequest) -> str | None:
    """Why an answer is not one that could be given again, or None."""
    metadata: dict[str, Any] = request.metadata
    if request.part == "end":
        return "streamed"
    if metadata.get("message"):
        return "tool_call"
    return None if metadata.get("finish_reason", "stop") == "stop" and request.output else "unfinished"


def store_settings() -> RuntimeSettings:
    """The settings of this process, for the step that stores: its own id, subject and queue group, no fixed
    port.
    """
    own = {
        "extension_id": STORE,
        "extension_type": None,
        "nats_subject": derive_subject("post", STORE),
        "nats_queue_group": STORE,
        "metrics_port": 0,
        "metrics_host": "127.0.0.1",
    }
    return RuntimeSettings.from_environment().model_copy(update=own)
