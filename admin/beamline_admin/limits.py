"""How much one caller may ask: the size of a body, and requests per second.

A token bucket for each identity, and one for each address that shows no valid token; the least recently
seen make room where there are :data:`MAX_CALLERS`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MAX_BODY: Final = 256 * 1024
"""As of a request to the router (contract: "Limits")."""
MAX_CALLERS: Final = 1_024


class Rate:
    """``per_second`` requests on average, ``burst`` at once, per caller. ``clock``: monotonic seconds."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """0.0 where a request may pass, and is counted; else in how many seconds the next one may."""
        now = self._clock()
        left, since = self._buckets.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        allowed = left >= 1.0
        self._buckets[caller] = (left - 1.0 if allowed else left, now)
        while len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._per_second
