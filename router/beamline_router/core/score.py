"""The strategy ``score``: providers ranked by quality, cost and latency. Pure.

A provider's Extension publishes hints under ``metadata.score``: ``quality`` from 0 to 1, ``cost`` in any unit
that all candidates share, ``latencyMs``. The latency that this router measures takes the hint's place, and
fades back to it while nobody calls (as for the strategy ``latency``).

Cost and latency are compared with the mean of the candidates that state one: x becomes mean / (mean + x),
which
is 1 for nothing, 1/2 for the mean and goes to 0, whatever the unit. A provider without a hint gets 1/2:
neither favoured nor punished for silence. The score is the weighted mean of the three parts, from 0 to 1.

What follows, and is tested: a provider that is at least as good in everything never scores less; better
quality,
lower cost and lower latency never lower one's own score; units and the order of the list don't matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import Any, Final

UNKNOWN: Final = 0.5
"""What a provider gets where it says nothing."""
_MAX_COST: Final = 1e12
_MAX_LATENCY_MS: Final = 600_000.0


@dataclass(frozen=True, slots=True)
class Hints:
    """What a provider says of itself; None where it says nothing. ``latency_ms`` in milliseconds."""

    quality: float | None = None
    cost: float | None = None
    latency_ms: float | None = None


NO_HINTS: Final = Hints()


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part counts. At least one is above 0."""

    quality: float = 1.0
    cost: float = 1.0
    latency: float = 1.0


ALIKE: Final = Weights()


@dataclass(frozen=True, slots=True)
class Score:
    """``total`` is the weighted mean of the parts, all from 0 to 1."""

    total: float
    quality: float
    cost: float
    latency: float


def read_hints(metadata: Mapping[str, Any]) -> Hints:
    """The hints under ``score`` of an Extension's metadata. These are free notes for people and tools, so
    what is no number within its bounds counts as not said.
    """
    stated = metadata.get("score")
    if not isinstance(stated, Mapping):
        return NO_HINTS
    return Hints(
        _number(stated.get("quality"), 1.0),
        _number(stated.get("cost"), _MAX_COST),
        _number(stated.get("latencyMs", stated.get("latency_ms")), _MAX_LATENCY_MS),
    )


def expected_ms(
    hint_ms: float | None, measured_ms: float | None, idle_s: float, memory_s: float
) -> float | None:
    """Milliseconds to expect: the measured average, fading to the hint with the time without a call."""
    if measured_ms is None:
        return hint_ms
    if hint_ms is None:
        return measured_ms
    return hint_ms + (measured_ms - hint_ms) * exp(-max(idle_s, 0.0) / memory_s)


def scores(candidates: Sequence[Hints], weights: Weights) -> list[Score]:
    """The score of each candidate among these; ``latency_ms`` is the one to expect."""
    cost = _lower_is_better([one.cost for one in candidates])
    latency = _lower_is_better([one.latency_ms for one in candidates])
    whole = weights.quality + weights.cost + weights.latency
    found = []
    for one, cheap, fast in zip(candidates, cost, latency, strict=True):
        quality = UNKNOWN if one.quality is None else one.quality
        total = (weights.quality * quality + weights.cost * cheap + weights.latency * fast) / whole
        found.append(Score(total, quality, cheap, fast))
    return found


def _lower_is_better(values: Sequence[float | None]) -> list[float]:
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else 0.0
    if mean <= 0:
        return [UNKNOWN] * len(values)
    return [UNKNOWN if value is None else mean / (mean + value) for value in values]


def _number(value: object, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) and 0 <= value <= most else None
