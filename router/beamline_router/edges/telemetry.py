"""What the router counts: metrics for Prometheus, and health deltas for the operator.

One :class:`Telemetry` is the pipeline's recorder. It is called several times per request, so a call is a
dictionary lookup and a few additions (:mod:`.tallies`); only what is rare is counted by prometheus_client
itself, whose children take a lock each time. Labels are bounded: ids come from compiled policies, and the
series of an extension that left the registry are removed with the next swap (:meth:`Telemetry.keep`).
Tenants, models and request ids are never labels.

Threads: everything here runs on the event loop, except a scrape, which renders in a thread: see
:mod:`.tallies`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from beamline_contract.errors import ErrorCode
from beamline_contract.reports import HealthDelta

from ..core.request import Answer, Failure
from ..core.snapshot import Snapshot
from .tallies import Family, Tally, TallyCollector, Tokens
from .traffic import PolicyTally, traffic_of

BreakerWord = Literal["closed", "open", "half-open", "isolated"]
BREAKER_VALUES: Final[dict[str, int]] = {"closed": 0, "half-open": 1, "open": 2, "isolated": 3}
"""Values of ``extension_breaker_state``."""

_OK: Final = "ok"
_EXHAUSTED: Final = ErrorCode.RESOURCE_EXHAUSTED.value.lower()
_CLOSED: Final = "closed"
_PROVIDER_STEP: Final = "select_provider"
_STATUSES: Final = frozenset({"ok", "rejected", "skipped", "error"})


@dataclass(slots=True)
class _Calls:
    """Calls to one extension since the last report."""

    success: int = 0
    failure: int = 0
    seconds: float = 0.0
    last_success: float = 0.0
    last_failure: float = 0.0
    last_error: str | None = None
    breakers: dict[str, str] = field(default_factory=dict)
    changed: bool = False

    @property
    def breaker(self) -> str:
        """The worst state among the extension's breakers."""
        return max(self.breakers.values(), key=lambda word: BREAKER_VALUES.get(word, 0), default="closed")


class Telemetry:
    """The router's recorder. ``wall`` is Unix seconds, for the times in health reports."""

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._wall = wall
        self._steps: defaultdict[str, Tally] = defaultdict(Tally)
        self._providers: dict[str, Tally] = {}
        self._doors: defaultdict[str, Tally] = defaultdict(Tally)
        self._policies: defaultdict[str, PolicyTally] = defaultdict(PolicyTally)
        self._own: defaultdict[str, Tally] = defaultdict(Tally)
        self._tokens: dict[str, tuple[Tokens, Tokens]] = {}
        self._calls: dict[str, _Calls] = {}
        self._make_metrics()

    def step(
        self, extension_id: str, extension_type: str, outcome: str, reason: str | None, seconds: float
    ) -> None:
        """One step came to its end (``core.ports.Recorder``). ``shadow`` counts as what it would have been:
        ok.
        """
        status = outcome if outcome in _STATUSES else _OK
        tally = self._steps[extension_id]
        tally.add(status, seconds)
        if extension_type == "provider" and extension_id not in self._providers:
            self._providers[extension_id] = tally  # a provider's steps under other names: counted once
        if reason is not None and status in {"error", "skipped"}:
            self._failures.labels(extension_id, _reason_label(reason)).inc()

    def attempt(self, extension_id: str, failed: bool, reason: str | None, seconds: float) -> None:
        """One call to an extension ended (``core.ports.Recorder``)."""
        calls = self._calls.get(extension_id)
        if calls is None:
            calls = self._calls[extension_id] = _Calls()
        if failed:
            calls.failure += 1
            calls.last_failure = self._wall()
            calls.last_error = reason
        elif reason is None:
            calls.success += 1
            calls.last_success = self._wall()
        else:
            return  # the caller's fault, a cancelled call, a 429: that says nothing about health
        calls.seconds += seconds
        calls.changed = True

    def dropped(self, extension_id: str, what: str) -> None:
        """Something an extension sent was ignored (``core.ports.Recorder``)."""
        self._dropped.labels(extension_id, what[:64]).inc()

    def breaker(self, extension_id: str, state: str) -> None:
        """A breaker changed its state (``core.ports.Recorder``).

        A step's own breaker has the key ``id@policy/step``: a gauge of its own, but in health reports an
        extension has one word, the worst.
        """
        self._breakers.labels(extension_id).set(BREAKER_VALUES.get(state, 0))
        calls = self._calls.setdefault(_owner(extension_id), _Calls())
        calls.breakers[extension_id] = state
        calls.changed = True

    def request(self, door: str, result: Answer | Failure, seconds: float) -> None:
        """One request left by ``door`` (http or nats)."""
        if isinstance(result, Answer):
            code = _OK
            usage = result.usage
            tokens = self._tokens.get(result.provider_id)
            if tokens is None:
                tokens = self._tokens[result.provider_id] = (Tokens(), Tokens())
            tokens[0].add(usage.get("prompt_tokens", 0))
            tokens[1].add(usage.get("completion_tokens", 0))
            own = seconds
            for step in result.trail:
                if step.action == _PROVIDER_STEP:
                    own -= step.ms / 1000.0
            self._own[door].add(_OK, max(0.0, own))
        else:
            code = result.error.code.value.lower()
        self._doors[door].add(code, seconds)
        if result.policy_id is not None:
            self._policies[result.policy_id].add(result)

    def shed(self, door: str) -> None:
        """One request was refused at once by a router that is full or overloaded."""
        self._doors[door].add_at_once(_EXHAUSTED)

    def traffic(self, snapshot: Snapshot | None) -> dict[str, object]:
        """Everything counted since the start, as the admin subject tells it."""
        return traffic_of(self._doors, self._steps, self._policies, snapshot)

    def example_of_door(self, door: str, trace_id: str, seconds: float) -> None:
        """The trace of a request that :meth:`request` was told of."""
        self._doors[door].example(trace_id, seconds, self._wall())

    def example_of_step(self, extension_id: str, trace_id: str, seconds: float) -> None:
        """The trace of a step that :meth:`step` was told of."""
        if extension_id in self._steps:  # it may have left the registry meanwhile
            self._steps[extension_id].example(trace_id, seconds, self._wall())

    def reloaded(self, seconds: float, sizes: dict[tuple[str, str], int], revision: int) -> None:
        """A table that was read from the registry serves, as :meth:`serves` has it."""
        self._reload_seconds.observe(seconds)
        self.serves(sizes, revision)

    def serves(self, sizes: dict[tuple[str, str], int], revision: int) -> None:
        """A new table serves. ``sizes``: (type, "true" or "false" for enabled) to how many there are."""
        self._size.clear()
        for labels, count in sizes.items():
            self._size.labels(*labels).set(count)
        self._revision.set(revision)

    def reload_failed(self) -> None:
        """A reload failed; the last good table serves on."""
        self._reload_errors.inc()

    def table_age(self, age: Callable[[], float]) -> None:
        """``age``: seconds since the table was last known to be current."""
        self._age.set_function(age)

    def late_reply(self) -> None:
        """A reply came when nobody waited for it any more, or a second time."""
        self._late.inc()

    def in_flight(self, count: Callable[[], float]) -> None:
        """``count``: requests that are being served."""
        self._in_flight.set_function(count)

    def keep(self, ids: Set[str]) -> None:
        """Forgets the series and unsent health of every extension not in ``ids``, so that memory stays
        flat.
        """
        for counted in (self._steps, self._providers, self._tokens, self._calls):
            for extension_id in counted.keys() - ids:
                del counted[extension_id]
        for metric in self._by_extension:
            for labels in [labels for labels in tuple(metric._metrics) if _owner(labels[0]) not in ids]:
                metric.remove(*labels)

    def health(self) -> list[HealthDelta]:
        """What changed since :meth:`forget` was last called with a report's deltas."""
        return [_delta(extension_id, calls) for extension_id, calls in self._calls.items() if calls.changed]

    def restate(self) -> None:
        """The next report says again which breakers are not closed: somebody listens who did not before."""
        for calls in self._calls.values():
            calls.changed = calls.changed or calls.breaker != _CLOSED

    def forget(self, sent: list[HealthDelta]) -> None:
        """Takes deltas that have been published out of the next report; calls made meanwhile stay in it."""
        for delta in sent:
            calls = self._calls.get(delta.extension_id)
            if calls is None:
                continue
            calls.success -= delta.success
            calls.failure -= delta.failure
            calls.seconds = max(0.0, calls.seconds - delta.latency_ms_sum / 1000.0)
            if calls.success == 0 and calls.failure == 0 and calls.breaker == delta.breaker:
                calls.seconds = 0.0
                calls.changed = False

    def _make_metrics(self) -> None:
        into = self.registry
        self._size = Gauge(
            "extension_registry_size", "Extensions in the registry.", ("type", "enabled"), registry=into
        )
        self._revision = Gauge(
            "extension_registry_revision", "Registry revision that this router serves.", registry=into
        )
        self._age = Gauge(
            "extension_registry_age_seconds",
            "Seconds since the table was last known to be current.",
            registry=into,
        )
        self._reload_seconds = Histogram(
            "extension_registry_reload_duration_seconds", "Read, compile and swap of a table.", registry=into
        )
        self._reload_errors = Counter(
            "extension_registry_reload_errors_total",
            "Reloads that failed; the last good table served on.",
            registry=into,
        )
        self._failures = Counter(
            "extension_failures_total", "Failed steps by error.", ("extension_id", "reason"), registry=into
        )
        self._breakers = Gauge(
            "extension_breaker_state",
            "0 closed, 1 half-open, 2 open, 3 isolated.",
            ("extension_id",),
            registry=into,
        )
        self._dropped = Counter(
            "extension_dropped_total",
            "What extensions sent and the router ignored.",
            ("extension_id", "what"),
            registry=into,
        )
        self._late = Counter(
            "router_late_replies_total",
            "Replies of extensions that came when nobody waited any more, or a second time; dropped.",
            registry=into,
        )
        self._in_flight = Gauge("router_requests_in_flight", "Requests being served.", registry=into)
        self._by_extension: tuple[MetricWrapperBase, ...] = (self._failures, self._breakers, self._dropped)
        into.register(
            TallyCollector(
                (
                    Family(
                        self._steps,
                        "extension_id",
                        "extension_request_duration_seconds",
                        "Steps, all attempts included.",
                        "extension_requests_total",
                        "Steps by how they ended.",
                        "status",
                    ),
                    Family(
                        self._providers,
                        "provider_id",
                        "provider_latency_seconds",
                        "Provider steps.",
                        "provider_requests_total",
                        "Provider steps by how they ended.",
                        "status",
                    ),
                    Family(
                        self._providers,
                        "gen_ai_provider_name",
                        "gen_ai_client_operation_duration_seconds",
                        "gen_ai.client.operation.duration: provider steps, by the id of the provider.",
                        constant=(("gen_ai_operation_name", "chat"),),
                    ),
                    Family(
                        self._doors,
                        "door",
                        "router_request_duration_seconds",
                        "Requests from the door and back.",
                        "router_requests_total",
                        "Requests by door and end.",
                        "code",
                    ),
                    Family(
                        self._own,
                        "door",
                        "router_overhead_seconds",
                        "Answered requests without the time of the provider step.",
                    ),
                ),
                self._tokens,
            )
        )


def _owner(key: str) -> str:
    return key.partition("@")[0]


def _reason_label(reason: str) -> str:
    return reason.lower() if reason.upper() in ErrorCode.__members__ else "internal"


def _delta(extension_id: str, calls: _Calls) -> HealthDelta:
    return HealthDelta(
        extension_id=extension_id,
        success=calls.success,
        failure=calls.failure,
        latency_ms_sum=calls.seconds * 1000.0,
        last_success=_rfc3339(calls.last_success),
        last_failure=_rfc3339(calls.last_failure),
        last_error=calls.last_error,
        breaker=calls.breaker if calls.breaker in BREAKER_VALUES else "closed",  # type: ignore[arg-type]  # checked here
    )


def _rfc3339(unix: float) -> str | None:
    return (
        datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if unix
        else None
    )
