"""Admission control: which share of the requests an overloaded router refuses, so that it serves the rest
well.

More work than one process can do queues up: in the event loop, in the sockets, in NATS' own buffers. Without
control everybody waits for all of it, and most of what is served then comes too late. So the router measures
how long work waits before it is looked at, and refuses what it can't serve, at once, when that time stands.

The measure is a delay in seconds, sampled a few times per interval (:meth:`Shedder.sample`): of the event
loop's own timer, and of a ping that travels through the same NATS connection as the requests. A single late
sample says nothing on a shared machine; what counts is the *smallest* of an interval, as in CoDel (RFC 8289):
a queue that never became short. What is counted from is the smallest delay of the last minutes, so a distant
NATS server is no overload.

From that delay a proportional-integral controller, as in PIE (RFC 8033), makes the share to refuse. Shares
are spread evenly over the arrivals instead of drawn. Below a number of requests in flight (``FLOOR``)
everybody is let through, whatever the delay: so many keep the process busy to its limit, so refusing them
would cost goodput, and under a lasting overload the number in flight settles there. Requests that only wait
for a slow model cause no delay, and are bounded by the router's ``limit`` alone.

Pure: ``now`` is monotonic seconds, nothing is drawn, and :meth:`Shedder.refuses` is a comparison where
nothing is to be refused.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

TARGET_S: Final = 0.005
"""The standing delay that is accepted: the time within which a refusal shall leave."""
INTERVAL_S: Final = 0.1
"""A delay stands if it was never smaller for this long (CoDel's interval)."""
FLOOR: Final = 256
"""Requests in flight that are always let through: as many as saturate one process (docs/performance.md)."""
MAX_SHARE: Final = 0.98
_BASELINE_S: Final = 60.0
_BASELINE_PARTS: Final = 10
_CAP_S: Final = 0.05
"""Delays above count as this much: a process that was stopped for a second is not twenty times overloaded."""
_ALPHA: Final = 1.0
"""Share per second of delay above the target, per step: 10 ms too much add 1 % each 20 ms."""
_BETA: Final = 10.0
"""Share per second of change of the delay: damps the swing."""
_DECAY: Final = 0.94
"""What remains of the share with each step in which the delay is below half of the target."""
_GONE: Final = 0.005
_STEP_S: Final = 0.02


class Shedder:
    """One router's admission control. ``target_s``: the standing delay that is accepted."""

    __slots__ = ("_baseline", "_credit", "_delay", "_recent", "_stepped_at", "share", "target_s")

    def __init__(self, target_s: float = TARGET_S) -> None:
        self.target_s = target_s
        self.share = 0.0
        """The share of requests to refuse now, 0 to ``MAX_SHARE``."""
        self._recent: deque[tuple[float, float]] = deque()
        self._baseline: deque[list[float]] = deque()
        self._delay = 0.0
        self._stepped_at = -inf
        self._credit = 0.0

    @property
    def delay_s(self) -> float:
        """The standing delay above the baseline, in seconds."""
        return self._delay

    def sample(self, delay_s: float, now: float) -> None:
        """One measured delay; steps the controller at most every 20 ms."""
        recent = self._recent
        recent.append((now, delay_s))
        while recent[0][0] < now - INTERVAL_S:
            recent.popleft()
        if now - self._stepped_at < _STEP_S:
            return
        self._stepped_at = now
        smallest = min(delay for _, delay in recent)
        before = self._delay
        self._delay = min(max(0.0, smallest - self._base(smallest, now)), _CAP_S)
        if self._delay < self.target_s / 2:
            self.share = self.share * _DECAY if self.share > _GONE else 0.0
            return
        change = _ALPHA * (self._delay - self.target_s) + _BETA * (self._delay - before)
        self.share = min(MAX_SHARE, max(0.0, self.share + change))

    def refuses(self, in_flight: int) -> bool:
        """Whether the request that has just arrived is refused; counts it."""
        if self.share == 0.0 or in_flight < FLOOR:
            return False
        self._credit += self.share
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def forget(self) -> None:
        """The way that is measured has changed (a reconnect): everything is learnt anew."""
        self._recent.clear()
        self._baseline.clear()
        self._delay = self.share = self._credit = 0.0

    def _base(self, smallest: float, now: float) -> float:
        """The smallest delay of the last minute, kept as the minima of its tenths."""
        part = float(int(now / (_BASELINE_S / _BASELINE_PARTS)))
        parts = self._baseline
        # While requests are refused the delay is of our own making and must not become the new normal.
        if not parts or (parts[-1][0] < part and self.share == 0.0):
            parts.append([part, smallest])
            while len(parts) > _BASELINE_PARTS:
                parts.popleft()
        elif smallest < parts[-1][1]:
            parts[-1][1] = smallest
        return min(least for _, least in parts)
