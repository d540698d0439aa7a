"""Admission control: how many requests an overloaded router has in flight, so that it serves those well.

More work than one process can do queues up: in the event loop, in the sockets, in NATS' own buffers. Without
control everybody waits for all of it, and most of what is served then comes too late. So the router measures
how long work waits before it is looked at, and refuses what it can't serve, at once, when that time stands.

The measure is a delay in seconds, sampled a few times per interval (:meth:`Shedder.sample`): of the event
loop's own timer, and of a ping that travels through the same NATS connection as the requests. A single late
sample says nothing on a shared machine; what counts is the *smallest* of an interval, as in CoDel (RFC 8289):
a queue that never became short. A process that ran out of work meanwhile had no queue, however late the ping
was (another process has the core, NATS itself is late): such a sample counts as none. What is counted from is
the smallest delay of the last minute, so a distant NATS server is no overload.

From then on a bound on the requests in flight is steered so that the delay comes to ``HELD_S``: by as many as
end in the time by which it is off. So what is let in follows what the process gets done, however much of the
core it has at the moment, and where requests wait for slow models, which cause no delay, the bound is above
those.
A queue that is held so short keeps few requests at work: what they touch stays in the core's caches, and a
refusal waits as little as everything else. Who is let in when others end also goes through the steps with
its likes, in larger batches than if shares of the arrivals were let in. It is always the newest that is
refused: what was let in has cost something already. As many as end within ``FLOOR_S`` are never refused.

Clients who come back at once each time they are refused can keep a router busy refusing that could serve them
all. So every ``TRIAL_S`` everybody is let in, until a delay above the target stands again; a load that does
not wait for its answers costs that a queue of some tenths of a second. And who is refused while nearly
everybody is may be left unheard for ``rest_s``.

Pure: ``now`` is monotonic seconds, nothing is drawn, and :meth:`Shedder.refuses` is an addition, a
comparison and no more.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

TARGET_S: Final = 0.015
"""The standing delay that is accepted before anybody is refused. A request waits so long once for each of its
steps, which is little beside a model's answer; a few hundred clients who each wait for theirs stay below it.
"""
INTERVAL_S: Final = 0.1
"""A delay stands if it was never smaller for this long (CoDel's interval)."""
HELD_S: Final = 0.001
"""The delay that is aimed at while requests are refused: work for a turn of the event loop, so that it never
idles, and refusals leave well within 5 ms.
"""
FLOOR: Final = 4
"""Requests in flight that are let through whatever the delay; more where more end within ``FLOOR_S``."""
FLOOR_S: Final = 0.003
BESIEGED: Final = 0.94
"""The share from which on who is refused rests: four times what can be served is a share of 0.75."""
REST_S: Final = 0.25
"""For how long where all are refused; they were told to come back in a second."""
TRIAL_S: Final = 10.0
"""For so long requests are refused before it is tried what happens when all are let in."""
_TRIAL_ENDS_S: Final = 1.0
"""For so long after its begin a delay is of the trial's making."""
_BASELINE_S: Final = 60.0
_BASELINE_PARTS: Final = 10
_GROWTH: Final = 0.1
"""Of the bound, at least, in a step without delay: where most requests wait for models it is in thousands."""
_HELD_INTERVAL_S: Final = 0.04
"""From when samples count while a queue is held: older ones would make it swing."""
_STEP_S: Final = 0.02
_FLOW_S: Final = 0.2
"""Over how long arrivals, refusals and ends are counted."""


class Shedder:
    """One router's admission control."""

    __slots__ = (
        "_arrived",
        "_baseline",
        "_delay",
        "_flow",
        "_in_flight",
        "_recent",
        "_refused",
        "_stepped_at",
        "_tried_at",
        "limit",
        "share",
    )

    def __init__(self) -> None:
        self.limit = inf
        """Requests in flight from which on one more is refused; infinite without overload."""
        self.share = 0.0
        """The share of requests that were refused lately, 0 to 1."""
        self._recent: deque[tuple[float, float]] = deque()
        self._baseline: deque[list[float]] = deque()
        self._flow: deque[tuple[float, int, int, int]] = deque()
        self._arrived = self._refused = self._in_flight = 0
        self._delay = 0.0
        self._stepped_at = self._tried_at = -inf

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
        # One from before stays: after a pause of the process a single late sample would be all there is.
        while len(recent) > 1 and recent[1][0] < now - INTERVAL_S:
            recent.popleft()
        if now - self._stepped_at < _STEP_S:
            return
        self._stepped_at = now
        rate = self._flows(now, ended)
        held = self.limit < inf
        since = now - _HELD_INTERVAL_S if held else -inf
        smallest = min(delay for at, delay in recent if at >= since)
        self._delay = max(0.0, smallest - self._base(delay_s, now))
        if held:
            is_over = self.share == 0.0 and self._in_flight < self.limit / 2
            if is_over or now - self._tried_at >= TRIAL_S:
                self.limit, self._tried_at = inf, now
                recent.append((now, 0.0))
                return
        elif self._delay < TARGET_S:
            return
        else:
            self.limit, self._tried_at = float(self._in_flight), now
        missing = HELD_S - self._delay
        if missing > 0.0:
            self.limit += missing * max(rate, self.limit * _GROWTH / HELD_S)
        else:
            self.limit = max(self.limit + missing * rate, rate * FLOOR_S, FLOOR)

    def rest_s(self) -> float:
        """For how long who is refused now may be left unheard, in seconds."""
        return max(0.0, (self.share - BESIEGED) / (1.0 - BESIEGED) * REST_S)

    def refuses(self, in_flight: int) -> bool:
        """Whether the request that has just arrived is refused; counts it."""
        self._arrived += 1
        self._in_flight = in_flight
        if in_flight < self.limit:
            return False
        self._refused += 1
        return True

    def forget(self) -> None:
        """The way that is measured has changed (a reconnect): everything is learnt anew."""
        self._recent.clear()
        self._baseline.clear()
        self._flow.clear()
        self._delay = self.share = 0.0
        self.limit = inf

    def _flows(self, now: float, ended: int) -> float:
        """Requests that ended per second, lately; sets the share by the same flow."""
        flow = self._flow
        flow.append((now, self._arrived, self._refused, ended))
        while flow[0][0] < now - _FLOW_S:
            flow.popleft()
        since, arrived, refused, done = flow[0]
        arrivals = self._arrived - arrived
        self.share = (self._refused - refused) / arrivals if arrivals else 0.0
        return (ended - done) / (now - since) if now > since else 0.0

    def _base(self, delay_s: float, now: float) -> float:
        """The smallest delay of the last minute, kept as the minima of its tenths."""
        part = float(int(now / (_BASELINE_S / _BASELINE_PARTS)))
        parts = self._baseline
        # While requests are refused the delay is of our own making and must not become the new normal.
        calm = self.limit == inf and now - self._tried_at >= _TRIAL_ENDS_S
        if not parts or (parts[-1][0] < part and calm):
            parts.append([part, delay_s])
            while len(parts) > _BASELINE_PARTS:
                parts.popleft()
        elif delay_s < parts[-1][1]:
            parts[-1][1] = delay_s
        return min(least for _, least in parts)
