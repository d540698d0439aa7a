"""Health deltas of several routers, added up before they are folded in: pure, for both registries."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from beamline_contract.reports import HealthDelta

from . import instants

WINDOW_MINUTES: Final = 5
"""The health score looks at this many one-minute buckets, the current one among them."""

_MOST: Final = 10**12  # calls in one report; what is above is nonsense that must not overflow the sums


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened at one extension since the last fold, over all routers."""

    extension_id: str
    success: int
    failure: int
    latency_ms_sum: float
    last_success: datetime | None
    last_failure: datetime | None


def tally(deltas: Iterable[HealthDelta]) -> list[Tally]:
    """One tally per extension, by id. Impossible numbers count as none, unreadable times as unknown."""
    sums: dict[str, Tally] = {}
    for delta in deltas:
        so_far = sums.get(delta.extension_id, Tally(delta.extension_id, 0, 0, 0.0, None, None))
        latency = delta.latency_ms_sum
        sums[delta.extension_id] = Tally(
            extension_id=delta.extension_id,
            success=so_far.success + _count(delta.success),
            failure=so_far.failure + _count(delta.failure),
            latency_ms_sum=so_far.latency_ms_sum
            + (latency if math.isfinite(latency) and latency >= 0 else 0.0),
            last_success=later(so_far.last_success, instants.parse(delta.last_success)),
            last_failure=later(so_far.last_failure, instants.parse(delta.last_failure)),
        )
    return [sums[extension_id] for extension_id in sorted(sums) if "\0" not in extension_id]


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later instant; an unknown one loses."""
    known = [instant for instant in (one, other) if instant is not None]
    return max(known, default=None)


def _count(calls: int) -> int:
    return calls if 0 <= calls <= _MOST else 0
