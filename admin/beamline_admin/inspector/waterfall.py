"""The trail of a request as bars over time. Pure.

Positions are in thousandths of the whole, because a page may have no style of its own: they become attributes
of a drawing that is 1,000 wide and stretched to its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from beamline_contract.names import TYPE_OF_ACTION

WIDTH: Final = 1_000.0
MIN_WIDTH: Final = 6.0
"""A bar that is over at once can still be seen."""
LOOKS: Final[Mapping[str, str]] = {
    "ok": "good",
    "rejected": "warn",
    "error": "bad",
    "skipped": "off",
    "shadow": "info",
}
REASONS: Final[Mapping[str, str]] = {
    "ordered": "it is the first in the policy's order that could be asked",
    "weighted": "it was drawn by its weight",
    "least_inflight": "it had the fewest calls under way",
    "latency": "it has been the fastest",
    "sticky": "the request's key belongs to it",
    "score": "it has the best score of quality, cost and latency",
    "canary": "the request is among the canary's share",
    "fallback": "the ones before it failed or could not be asked",
    "last trial": "every breaker was open; it reopens first, so it got one last trial",
    "overlap": "it ran beside the provider",
}

SHORT: Final[Mapping[str, str]] = {
    "ordered": "first in order",
    "weighted": "by weight",
    "least_inflight": "fewest calls under way",
    "latency": "fastest so far",
    "sticky": "by its key",
    "score": "best score",
    "overlap": "beside the provider",
}
"""The same beside a step; words that are not here are short as they are."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One step. ``x`` and ``width`` are thousandths; ``type`` and ``look`` are class names."""

    name: str
    extension: str
    type: str
    look: str
    outcome: str
    x: float
    width: float
    start_ms: float
    ms: float
    attempts: int
    notes: tuple[str, ...]
    """What sets it apart, in words: why it ran, what failed, its breaker, its version."""

    @property
    def title(self) -> str:
        """All of it in one line."""
        said = f"{self.name}: {self.outcome}, {self.ms:.1f} ms from {self.start_ms:.1f} ms"
        return ", ".join((said, *self.notes))


@dataclass(frozen=True, slots=True)
class Failed:
    """Where a request failed, and why."""

    code: str
    message: str
    step: str
    extension: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Trail:
    """One request. What a router left out is empty: it may be of another release."""

    request_id: str
    trace_id: str
    at: str
    instance: str
    door: str
    policy: str
    tenant: str
    environment: str
    model: str
    error: Failed | None
    latency_ms: float
    provider: str
    why: str
    """Why this provider, as a clause."""
    bars: tuple[Bar, ...]
    prompt: str | None = None
    answer: str | None = None

    @property
    def span_ms(self) -> float:
        """How long the drawing is: a shadow step may end after the answer."""
        return max([self.latency_ms, *(bar.start_ms + bar.ms for bar in self.bars)])

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Trail:
        """The trail that a router told."""
        content = found.get("content") or {}
        error = found.get("error")
        reason = _text(found, "reason")
        return cls(
            request_id=_text(found, "request_id"),
            trace_id=_text(found, "trace_id"),
            at=_text(found, "at"),
            instance=_text(found, "instance"),
            door=_text(found, "door"),
            policy=_text(found, "policy"),
            tenant=_text(found, "tenant"),
            environment=_text(found, "environment"),
            model=_text(found, "model"),
            error=_failed(error or {}) if error or found.get("status") == "error" else None,
            latency_ms=_number(found, "latency_ms"),
            provider=_text(found, "provider"),
            why=REASONS.get(reason, reason),
            bars=tuple(bars_of(found)),
            prompt=content.get("prompt"),
            answer=content.get("answer"),
        )


def bars_of(trail: Mapping[str, Any]) -> list[Bar]:
    """The steps in the order in which they were begun."""
    steps = [step for step in trail.get("steps") or () if isinstance(step, Mapping)]
    ends = [_number(step, "start_ms") + _number(step, "ms") for step in steps]
    whole = max([_number(trail, "latency_ms"), *ends, 0.001])
    return [_bar(step, whole) for step in sorted(steps, key=lambda step: _number(step, "start_ms"))]


def _bar(step: Mapping[str, Any], whole: float) -> Bar:
    outcome = str(step.get("outcome", ""))
    start, ms = _number(step, "start_ms"), _number(step, "ms")
    width = min(WIDTH, max(MIN_WIDTH, WIDTH * ms / whole))
    action = str(step.get("action", ""))
    return Bar(
        str(step.get("name", "")),
        str(step.get("extension", "")),
        TYPE_OF_ACTION.get(action, "post"),
        LOOKS.get(outcome, "off"),
        outcome,
        round(min(WIDTH * start / whole, WIDTH - width), 1),
        round(width, 1),
        start,
        ms,
        int(_number(step, "attempts") or 1),
        tuple(_notes(step)),
    )


def _notes(step: Mapping[str, Any]) -> list[str]:
    said = []
    if reason := step.get("reason"):
        said.append(str(reason))
    if because := step.get("why"):
        said.append(SHORT.get(str(because), str(because)))
    attempts = int(_number(step, "attempts") or 1)
    if attempts != 1:
        said.append(f"{attempts} attempts")
    breaker = step.get("breaker")
    if breaker and breaker != "closed":
        said.append(f"breaker {breaker}")
    if version := step.get("version"):
        said.append(f"version {version}")
    if step.get("mode") == "shadow":
        said.append("recorded only")
    if group := step.get("parallel_group"):
        said.append(f"in parallel, group {group}")
    return said


def _failed(error: Mapping[str, Any]) -> Failed:
    return Failed(
        _text(error, "code") or "failed",
        _text(error, "message"),
        _text(error, "step"),
        _text(error, "extension"),
        int(_number(error, "attempts")),
    )


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return "" if value is None else str(value)


def _number(found: Mapping[str, Any], name: str) -> float:
    value = found.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
