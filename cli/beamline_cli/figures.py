"""From two looks at routers to rates: what `beamline top` shows. Pure: no clock, no terminal.

Each router counts since its start and says how old it is, by its own clock; what happened between two looks
is the difference. A router that was not there before, or that has started anew, has no rates yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Sort = Literal["name", "rate", "errors", "p50", "p99", "inflight"]
SORTS: Final[tuple[Sort, ...]] = ("rate", "errors", "p99", "p50", "inflight", "name")
BREAKERS: Final = ("closed", "half-open", "open", "isolated")


@dataclass(slots=True)
class Counts:
    """What happened: how many, how many of them failed by no caller's fault, and how long they took."""

    total: float = 0.0
    errors: float = 0.0
    buckets: Sequence[float] = ()

    def add(self, other: Counts) -> None:
        """Takes another's too."""
        self.total += other.total
        self.errors += other.errors
        mine = self.buckets or [0.0] * len(other.buckets)
        self.buckets = [a + b for a, b in zip(mine, other.buckets, strict=False)]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. Rates are per second, times milliseconds; None: nothing was measured."""

    name: str
    kind: str
    rate: float | None
    errors: float | None
    p50: float | None
    p99: float | None
    in_flight: int
    breaker: str = ""
    revision: int = 0
    uptime: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """What belongs to a router, or to an extension."""
        found: dict[str, Any] = {
            "requests_per_second": self.rate,
            "error_share": self.errors,
            "p50_ms": self.p50,
            "p99_ms": self.p99,
            "in_flight": self.in_flight,
        }
        if self.kind == "router":
            return {"router": self.name, **found, "revision": self.revision, "uptime_seconds": self.uptime}
        return {"extension": self.name, "type": self.kind, **found, "breaker": self.breaker}


@dataclass(frozen=True, slots=True)
class View:
    """One picture."""

    routers: list[Row]
    extensions: list[Row]

    def to_json(self) -> dict[str, Any]:
        """Both tables."""
        return {
            "routers": [row.to_json() for row in self.routers],
            "extensions": [row.to_json() for row in self.extensions],
        }


Look = Mapping[str, Mapping[str, Any]]
"""By router, the result of the admin verb ``traffic``."""


def view(before: Look, now: Look, sort: Sort) -> View:
    """What happened between two looks."""
    routers: list[Row] = []
    steps: dict[str, Counts] = {}
    rates: dict[str, float] = {}
    known: dict[str, tuple[str, int, str]] = {}
    bounds: Sequence[float] = ()
    for name, look in now.items():
        earlier = _same_start(before.get(name), look)
        bounds = look["bounds"]
        seconds = 0.0 if earlier is None else look["age_s"] - earlier["age_s"]
        measured = _between(earlier, look) if seconds > 0 else None
        routers.append(
            Row(
                name,
                "router",
                *_figures(measured, seconds, bounds),
                look["in_flight"],
                revision=look["revision"],
                uptime=look["age_s"],
            )
        )
        for extension, counted in look["extensions"].items():
            if counted["type"] is None:  # it has left the registry
                continue
            kind, busy, breaker = known.get(extension, (counted["type"], 0, "closed"))
            worst = max(breaker, counted["breaker"], key=_badness)
            known[extension] = (kind, busy + counted["in_flight"], worst)
            if seconds > 0:
                added = _between(None if earlier is None else earlier["extensions"].get(extension), counted)
                steps.setdefault(extension, Counts()).add(added)
                rates[extension] = rates.get(extension, 0.0) + added.total / seconds
    extensions = []
    for extension, (kind, busy, breaker) in known.items():
        counts = steps.get(extension)
        _, errors, p50, p99 = _figures(counts, 1.0, bounds)
        extensions.append(Row(extension, kind, rates.get(extension), errors, p50, p99, busy, breaker=breaker))
    return View(_sorted(routers, "name"), _sorted(extensions, sort))


def quantile(share: float, buckets: Sequence[float], bounds: Sequence[float]) -> float | None:
    """Milliseconds that ``share`` of the observations are within, linear inside of a bucket as in Prometheus.

    In the open bucket it is the last bound; None where there is no observation.
    """
    total = sum(buckets)
    if total <= 0:
        return None
    wanted, seen, lower = share * total, 0.0, 0.0
    for count, upper in zip(buckets, bounds, strict=False):
        if count > 0 and seen + count >= wanted:
            return (lower + (upper - lower) * max(0.0, wanted - seen) / count) * 1000.0
        seen, lower = seen + count, upper
    return bounds[-1] * 1000.0


def _figures(
    counts: Counts | None, seconds: float, bounds: Sequence[float]
) -> tuple[float | None, float | None, float | None, float | None]:
    if counts is None:
        return None, None, None, None
    errors = counts.errors / counts.total if counts.total else None
    p50, p99 = (quantile(share, counts.buckets, bounds) for share in (0.5, 0.99))
    return counts.total / seconds, errors, p50, p99


def _same_start(earlier: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if earlier is None or earlier["age_s"] > now["age_s"]:
        return None
    return earlier


def _between(earlier: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Counts:
    """What was added. An extension that left and came back counts from nothing."""
    if earlier is None or earlier["requests"] > now["requests"]:
        return Counts(now["requests"], now["errors"], now["buckets"])
    buckets = [new - old for old, new in zip(earlier["buckets"], now["buckets"], strict=True)]
    return Counts(now["requests"] - earlier["requests"], now["errors"] - earlier["errors"], buckets)


def _badness(breaker: str) -> int:
    return BREAKERS.index(breaker) if breaker in BREAKERS else 0


def _sorted(rows: Iterable[Row], sort: Sort) -> list[Row]:
    """The largest first; by name where equal. What was not measured comes last."""
    named = sorted(rows, key=lambda row: row.name)
    if sort == "name":
        return named

    def key(row: Row) -> float:
        values: dict[Sort, float | None] = {
            "rate": row.rate,
            "errors": row.errors,
            "p50": row.p50,
            "p99": row.p99,
            "inflight": float(row.in_flight),
        }
        value = values[sort]
        return float("-inf") if value is None else value

    return sorted(named, key=key, reverse=True)
