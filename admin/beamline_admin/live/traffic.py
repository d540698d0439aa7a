"""Traffic of all routers over the last hour, from the counters that they tell. Pure.

A router's counters only grow while it runs, so what lies between two answers of one instance is its traffic
in between; an instance is a process start, so a restart never counts twice. An instance that is new counts
from its start where it started since the look before, else from the first answer on: nobody knows when the
calls of before were made.

Whole requests are kept as one sample per look. Extensions and policies are kept in slots of
:data:`SLOT_S` and told as one sum over the last :data:`WINDOW_S`. Of a slot that is over, each extension that
was called in it leaves one small :class:`Point`, which is what the charts of half an hour are drawn of; a
thousand busy extensions, as many as routers tell of, keep some 60,000 of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, Final, NamedTuple

INTERVAL_S: Final = 5.0
KEPT: Final = 720
"""Samples: an hour of them."""
SLOT_S: Final = 30.0
WINDOW_S: Final = 300.0
MAX_POINTS: Final = 60
"""Slots in the charts of one extension: half an hour."""
FORGET_S: Final = 600.0
"""A router that has not answered for so long counts as new when it answers again."""


@dataclass(frozen=True, slots=True)
class Sample:
    """All routers between two looks. ``at`` is Unix seconds; latencies are None where nothing was asked."""

    at: float
    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None


class Point(NamedTuple):
    """Calls per second to one extension in one slot; latencies are None where nothing was asked."""

    requests: float
    errors: float
    p50_ms: float | None
    p99_ms: float | None


QUIET: Final = Point(0.0, 0.0, None, None)


@dataclass(slots=True)
class Counts:
    """Requests, and where known how long they took."""

    requests: int = 0
    errors: int = 0
    buckets: list[int] = field(default_factory=list)
    steps: dict[str, list[int]] = field(default_factory=dict)

    def add(self, more: Counts) -> None:
        """Adds ``more``."""
        self.requests += more.requests
        self.errors += more.errors
        self.buckets = _added(self.buckets, more.buckets)
        for name, counts in more.steps.items():
            self.steps[name] = _added(self.steps.get(name, []), counts)


@dataclass(slots=True)
class _Slot:
    began: float
    extensions: dict[str, Counts] = field(default_factory=dict)
    policies: dict[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Known:
    seen: float
    whole: Counts
    extensions: Mapping[str, Counts]
    policies: Mapping[str, Counts]


class Traffic:
    """Takes what routers answer, and tells it as JSON types."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._slots: deque[_Slot] = deque(maxlen=int(WINDOW_S / SLOT_S))
        self._past: deque[dict[str, Point]] = deque(maxlen=MAX_POINTS)
        self._bounds: Sequence[float] = ()
        self._looked: float | None = None

    def take(self, answers: Iterable[tuple[str, Mapping[str, Any]]], at: float) -> None:
        """One look at all routers: (instance, result of the verb ``traffic``). ``at`` is Unix seconds."""
        if not self._slots or at - self._slots[-1].began >= SLOT_S:
            if self._slots:
                over, seconds = self._slots[-1], at - self._slots[-1].began
                self._past.append(
                    {name: self._point(counts, seconds) for name, counts in over.extensions.items()}
                )
            self._slots.append(_Slot(at))
        slot, whole = self._slots[-1], Counts()
        for instance, told in answers:
            now = _Known(at, _counts(told), _all(told.get("extensions")), _all(told.get("policies")))
            self._bounds = tuple(told.get("bounds") or self._bounds)
            before = self._known.get(instance)
            self._known[instance] = now
            if before is None:
                age = float(told.get("age_s", float("inf")))
                if self._looked is None or age > at - self._looked + INTERVAL_S:
                    continue
                before = _Known(at, Counts(), {}, {})
            whole.add(_since(before.whole, now.whole))
            _gather(slot.extensions, before.extensions, now.extensions)
            _gather(slot.policies, before.policies, now.policies)
        self._known = {name: one for name, one in self._known.items() if at - one.seen < FORGET_S}
        self._looked = at
        p50, p99 = (quantile_ms(self._bounds, whole.buckets, share) for share in (0.5, 0.99))
        self._samples.append(Sample(at, whole.requests, whole.errors, p50, p99))

    def points(self, extension: str) -> list[Point]:
        """One for each of the last :data:`MAX_POINTS` slots, oldest first; the last one is not over yet."""
        if not self._slots or self._looked is None:
            return []
        slot = self._slots[-1]
        seconds = (
            self._looked - slot.began + INTERVAL_S
        )  # the look that begins a slot tells of what was before
        now = slot.extensions.get(extension)
        past = [known.get(extension, QUIET) for known in self._past]
        return [*past, QUIET if now is None else self._point(now, seconds)][-MAX_POINTS:]

    def _point(self, counts: Counts, seconds: float) -> Point:
        p50, p99 = (quantile_ms(self._bounds, counts.buckets, share) for share in (0.5, 0.99))
        return Point(counts.requests / seconds, counts.errors / seconds, p50, p99)

    def document(self, minutes: float = 30.0) -> dict[str, Any]:
        """The samples of the last ``minutes``; extensions and policies of the last five."""
        last = self._samples[-1].at if self._samples else 0.0
        extensions: dict[str, Counts] = {}
        policies: dict[str, Counts] = {}
        for slot in self._slots:
            if last - slot.began < WINDOW_S:
                for into, found in ((extensions, slot.extensions), (policies, slot.policies)):
                    for name, counts in found.items():
                        into.setdefault(name, Counts()).add(counts)
        return {
            "interval_seconds": INTERVAL_S,
            "samples": [_told(one) for one in self._samples if last - one.at < minutes * 60.0],
            "extensions": {
                name: {
                    "requests": counts.requests,
                    "errors": counts.errors,
                    "p50_ms": quantile_ms(self._bounds, counts.buckets, 0.5),
                    "p99_ms": quantile_ms(self._bounds, counts.buckets, 0.99),
                }
                for name, counts in sorted(extensions.items())
            },
            "policies": {
                name: {
                    "requests": counts.requests,
                    "errors": counts.errors,
                    "steps": {
                        step: {"requests": calls, "errors": failed}
                        for step, (calls, failed) in counts.steps.items()
                    },
                }
                for name, counts in sorted(policies.items())
            },
        }


def quantile_ms(bounds: Sequence[float], buckets: Sequence[int], share: float) -> float | None:
    """The latency that ``share`` of the calls stay below, in milliseconds; None without calls.

    ``bounds`` are upper bounds in seconds, ``buckets`` counts of each and of what is above. Between two
    bounds it is a straight line, as in Prometheus' ``histogram_quantile``.
    """
    total = sum(buckets)
    if not total or len(buckets) != len(bounds) + 1:
        return None
    rank, below = share * total, 0
    for index, reached in enumerate(accumulate(buckets)):
        if reached >= rank and buckets[index]:
            if index == len(bounds):
                break
            lower = bounds[index - 1] if index else 0.0
            part = (rank - below) / buckets[index]
            return round((lower + (bounds[index] - lower) * part) * 1000.0, 3)
        below = reached
    return round(bounds[-1] * 1000.0, 3)


def stamp(unix: float) -> str:
    """RFC 3339 of Unix seconds, with milliseconds."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _told(sample: Sample) -> dict[str, Any]:
    return {
        "at": stamp(sample.at),
        "requests": sample.requests,
        "errors": sample.errors,
        "p50_ms": sample.p50_ms,
        "p99_ms": sample.p99_ms,
    }


def _counts(told: Mapping[str, Any]) -> Counts:
    steps = {str(name): [int(one) for one in counts] for name, counts in (told.get("steps") or {}).items()}
    buckets = [int(one) for one in told.get("buckets") or ()]
    return Counts(int(told.get("requests", 0)), int(told.get("errors", 0)), buckets, steps)


def _all(told: Mapping[str, Any] | None) -> dict[str, Counts]:
    return {str(name): _counts(counts) for name, counts in (told or {}).items()}


def _gather(into: dict[str, Counts], before: Mapping[str, Counts], now: Mapping[str, Counts]) -> None:
    for name, counts in now.items():
        more = _since(before.get(name, Counts()), counts)
        if more.requests or any(one for one, _ in more.steps.values()):
            into.setdefault(name, Counts()).add(more)


def _since(before: Counts, now: Counts) -> Counts:
    """What came since; an extension that left the registry and came back begins at 0 again."""
    if now.requests < before.requests:
        return now
    return Counts(
        now.requests - before.requests,
        max(0, now.errors - before.errors),
        _less(now.buckets, before.buckets),
        {name: _less(counts, before.steps.get(name, [])) for name, counts in now.steps.items()},
    )


def _added(one: Sequence[int], more: Sequence[int]) -> list[int]:
    if len(one) != len(more):
        return list(more or one)
    return [a + b for a, b in zip(one, more, strict=True)]


def _less(now: Sequence[int], before: Sequence[int]) -> list[int]:
    if len(now) != len(before):
        return list(now)
    return [max(0, a - b) for a, b in zip(now, before, strict=True)]
