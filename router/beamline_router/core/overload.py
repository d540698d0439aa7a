"""Admission control: which share of the requests an overloaded router refuses, so that it serves the rest
well.

More work than one process can do queues up: in the event loop, in the sockets, in NATS' own buffers. Without
control everybody waits for all of it, and most of what is served then comes too late. So the router measures
how long work waits before it is looked at, and refuses what it can't serve, at once, when that time stands.

The measure is a delay in seconds, sampled a few times per interval (:meth:`Shedder.sample`): of the event
loop's own timer, and of a ping that travels through the same NATS connection as the requests. A single late
sample says nothing on a shared machine; what counts is the *smallest* of an interval, as in CoDel (RFC 8289):
a queue that never became short. A process that ran out of work meanwhile had no queue, however late the ping
was (another process has the core, NATS itself is late): such a sample counts as none. What is counted from is
the smallest delay of the last minute, so a distant NATS server is no overload.

A process with a standing queue is busy all the time, so what it gets done *is* what it can do, however much
of the core it has at the moment. That much is let in, less what empties the queue within ``DRAIN_S``: the
share to refuse follows from the requests that ended and arrived during the last ``_FLOW_S``, and so follows
a capacity that falls or a load that rises within that time. Once the queue is gone the share decays fast.
Shares are spread evenly over the arrivals instead of drawn. It is always the newest that is refused: what was
let in has cost something already.

A few are always let through (``floor``): as many in flight as end within the target. Requests that only wait
for a slow model cause no delay, and are bounded by the router's ``limit`` alone.

Pure: ``now`` is monotonic seconds, nothing is drawn, and :meth:`Shedder.refuses` is an addition and a
comparison where nothing is to be refused.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

TARGET_S: Final = 0.003
"""The standing delay that is accepted: refusals shall leave within 5 ms, and wait as long as all others."""
INTERVAL_S: Final = 0.1
"""A delay stands if it was never smaller for this long (CoDel's interval)."""
FLOOR: Final = 4
"""Requests in flight that are let through whatever the delay; more where more end within the target."""
MAX_SHARE: Final = 0.98
DRAIN_S: Final = 0.1
"""A queue above the target shall be gone within this time."""
_BASELINE_S: Final = 60.0
_BASELINE_PARTS: Final = 10
_SMOOTH: Final = 0.3
"""How much of the way to the share that is computed is gone in a step."""
_DECAY: Final = 0.94
"""What remains of the share with each step in which the delay is below half of the target."""
_GONE: Final = 0.005
_STEP_S: Final = 0.02
_FLOW_S: Final = 0.2
"""Over how long arrivals and ends are compared."""


class Shedder:
    """One router's admission control. ``target_s``: the standing delay that is accepted."""

    __slots__ = (
        "_arrived",
        "_baseline",
        "_credit",
        "_delay",
        "_flow",
        "_recent",
        "_stepped_at",
        "floor",
        "share",
        "target_s",
    )

    def __init__(self, target_s: float = TARGET_S) -> None:
        self.target_s = target_s
        self.share = 0.0
        """The share of requests to refuse now, 0 to ``MAX_SHARE``."""
        self.floor = float(FLOOR)
        """Requests in flight below which nobody is refused now."""
        self._recent: deque[tuple[float, float]] = deque()
        self._baseline: deque[list[float]] = deque()
        self._flow: deque[tuple[float, int, int]] = deque()
        self._arrived = 0
        self._delay = 0.0
        self._stepped_at = -inf
        self._credit = 0.0

    @property
    def delay_s(self) -> float:
        """The standing delay above the baseline, in seconds."""
        return self._delay

    def sample(self, delay_s: float, now: float, ended: int, *, idle: bool = False) -> None:
        """One measured delay; steps the controller at most every 20 ms.

        ``ended`` counts the admitted requests that have ended since the start; ``idle`` says that the process
        has had nothing to do at some moment since the last sample.
        """
        recent = self._recent
        recent.append((now, 0.0 if idle else delay_s))
        while recent[0][0] < now - INTERVAL_S:
            recent.popleft()
        if now - self._stepped_at < _STEP_S:
            return
        self._stepped_at = now
        done = self._flows(now, ended)
        smallest = min(delay for _, delay in recent)
        base = self._base(delay_s, now)
        self._delay = max(0.0, smallest - base)
        if self._delay < self.target_s / 2:
            self.share = self.share * _DECAY if self.share > _GONE else 0.0
            return
        room = 1.0 - (self._delay - self.target_s) / DRAIN_S
        wanted = min(MAX_SHARE, max(0.0, 1.0 - done * room))
        self.share += _SMOOTH * (wanted - self.share)

    def refuses(self, in_flight: int) -> bool:
        """Whether the request that has just arrived is refused; counts it."""
        self._arrived += 1
        if self.share == 0.0 or in_flight < self.floor:
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
        self._flow.clear()
        self._delay = self.share = self._credit = 0.0

    def _flows(self, now: float, ended: int) -> float:
        """Requests that ended per request that arrived, lately; sets the floor by the same flow."""
        flow = self._flow
        flow.append((now, self._arrived, ended))
        while flow[0][0] < now - _FLOW_S:
            flow.popleft()
        since, arrived, done = flow[0]
        arrivals, ends = self._arrived - arrived, ended - done
        if now <= since or arrivals <= 0:
            return 1.0
        self.floor = max(float(FLOOR), ends / (now - since) * self.target_s)
        return ends / arrivals

    def _base(self, delay_s: float, now: float) -> float:
        """The smallest delay of the last minute, kept as the minima of its tenths."""
        part = float(int(now / (_BASELINE_S / _BASELINE_PARTS)))
        parts = self._baseline
        # While requests are refused the delay is of our own making and must not become the new normal.
        if not parts or (parts[-1][0] < part and self.share == 0.0):
            parts.append([part, delay_s])
            while len(parts) > _BASELINE_PARTS:
                parts.popleft()
        elif delay_s < parts[-1][1]:
            parts[-1][1] = delay_s
        return min(least for _, least in parts)
