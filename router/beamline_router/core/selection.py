"""Which of several providers is asked first. Pure: randomness, counters and keys are arguments.

ordered         as listed; the others follow in order when one can't answer
weighted        at random, in proportion to the weights
least_inflight  two drawn at random by weight, the one with fewer calls in flight (power of two choices)
latency         two drawn at random by weight, the one with the lower expected latency
sticky          by weighted rendezvous hash of a key: the same key meets the same provider, and a provider
that comes or goes moves only its own share of the keys
score           the highest score of quality, cost and latency first, the others behind it (:mod:`.score`)

Versions of one extension are divided first, by their own weights: the strategy then chooses among the
versions that were drawn, one per candidate, each with its own breaker, load and latency.

Only those whose breaker would let a call through take part, as long as there is one; weight 0 takes no
traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, log
from typing import Final

from .keys import hashed
from .route import Call
from .score import Score, Weights, scores

LATENCY_MEMORY_S: Final = 10.0
"""An old latency fades with this time constant, so that a provider that was slow once is tried again."""
_UNANSWERED_S: Final = 600.0
_SCALE: Final = float(2**64)


def eligible(candidates: Sequence[Call], available: Callable[[Call], bool]) -> list[Call]:
    """Those with weight that can be called now; all with weight where none can."""
    weighted = [call for call in candidates if call.weight > 0 and call.absent is None]
    return (
        [call for call in weighted if available(call)] or weighted or [c for c in candidates if c.weight > 0]
    )


def version(base: Call, available: Callable[[Call], bool], *, key: str | None, random: float) -> Call:
    """The version of ``base`` that a request meets: by weighted rendezvous of ``key``, drawn without one.

    Versions that can't be called now leave their share to the others. Where no version has a weight the base
    itself is called.
    """
    able = versions_of(base, available)
    if len(able) == 1:
        return able[0]
    shares = [call.share for call in able]
    if key is None:
        return able[_drawn(shares, random)]
    # A key's score among versions must owe nothing to its score among providers: "version/" salts it anew.
    return able[_rendezvous([f"version/{call.extension_id}" for call in able], shares, key)]


def versions_of(base: Call, available: Callable[[Call], bool]) -> Sequence[Call]:
    """Those of which a request meets one: with a share and callable now, all with a share where none can be
    called, the base where none has a share.
    """
    shared = [call for call in base.versions if call.share > 0]
    return [call for call in shared if available(call)] or shared or base.versions[:1]


def weighted(candidates: Sequence[Call], random: float) -> int:
    """The index drawn by ``random`` in [0, 1)."""
    return _drawn([call.weight for call in candidates], random)


def two_of(candidates: Sequence[Call], random_1: float, random_2: float) -> tuple[int, int]:
    """Two different indices drawn by weight; the same one twice where there is only one."""
    first = weighted(candidates, random_1)
    if len(candidates) == 1:
        return first, first
    others = [*candidates[:first], *candidates[first + 1 :]]
    second = weighted(others, random_2)
    return first, second if second < first else second + 1


def better_of_two(
    candidates: Sequence[Call], cost: Callable[[Call], float], random_1: float, random_2: float
) -> int:
    """Power of two choices: the cheaper of two drawn ones, the first drawn where they are equal."""
    first, second = two_of(candidates, random_1, random_2)
    return second if cost(candidates[second]) < cost(candidates[first]) else first


def sticky(candidates: Sequence[Call], key: str) -> int:
    """Weighted rendezvous hashing: the highest score of -weight / ln(hash) wins."""
    return _rendezvous([call.named for call in candidates], [call.weight for call in candidates], key)


def expected_latency(ewma_s: float, idle_s: float, in_flight: int) -> float:
    """Seconds to expect: the moving average times the queue that one joins.

    While nobody calls it fades with the time since the last answer, to zero for one that has not answered
    yet; so each is tried again, by one call. Until that is answered the average holds in full, and for one
    without any the longest there may be (Finagle's PeakEwma has such a penalty): nobody follows blindly.
    """
    if in_flight == 0:
        return ewma_s * exp(-max(idle_s, 0.0) / LATENCY_MEMORY_S)
    return (ewma_s or _UNANSWERED_S) * (in_flight + 1)


def scored(
    candidates: Sequence[Call], weights: Weights, expected: Callable[[Call], float | None]
) -> list[tuple[Call, Score]]:
    """Those with weight, the best first; of equal ones, the one that is listed first. ``expected`` gives the
    milliseconds to expect, None where nobody knows.
    """
    weighted = [call for call in candidates if call.weight > 0]
    able = [call for call in weighted if call.absent is None] or weighted
    hints = [replace(call.hints, latency_ms=expected(call)) for call in able]
    return sorted(zip(able, scores(hints, weights), strict=True), key=lambda one: -one[1].total)


def _drawn(weights: Sequence[int], random: float) -> int:
    point = random * sum(weights)
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return index
    return len(weights) - 1


def _rendezvous(salts: Sequence[str], weights: Sequence[int], key: str) -> int:
    scores = [
        -weight / log((hashed(salt, key) + 0.5) / _SCALE) for salt, weight in zip(salts, weights, strict=True)
    ]
    return max(range(len(scores)), key=scores.__getitem__)
