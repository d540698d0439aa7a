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
all. So every ``TRIAL_S`` as many more are let in as end in ``TRIAL_ENDS_S``, until a delay above the target
stands again; a load that does not wait for its answers costs that a queue of that length. And who is refused
while nearly everybody is may be left unheard for ``rest_s``.

Where models take seconds, what was let in too much is felt seconds later, and what was taken back, too. So
the bound grows by no more than half of what ends meanwhile, and is lowered again only once what is in flight
has come down to it.

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
FLOOR_OF_REFUSED: Final = 0.25
"""So many stay in flight of those that are refused in one delay: where most work is refusing, serving fewer
makes the delay no shorter, and there would be nobody left to serve.
"""
_REFUSED_S: Final = 0.03
"""No longer delay counts for that."""
BESIEGED: Final = 0.88
"""The share from which on who is refused rests: eight times what can be served."""
REST_S: Final = 0.25
"""For how long where all are refused; they were told to come back in a second."""
TRIAL_S: Final = 10.0
"""For so long requests are refused before it is tried what happens when many more are let in."""
TRIAL_ENDS_S: Final = 0.25
"""What ends within this time is let in for a trial beside what is in flight."""
_TRIED_S: Final = 1.0
"""For so long after a trial's begin a delay is of its making."""
_BASELINE_S: Final = 60.0
_BASELINE_PARTS: Final = 10
_GROWTH: Final = 0.1
"""Of the bound, in a step without delay, where most requests wait for models and it is in thousands."""
_GROWTH_OF_ENDED: Final = 0.5
"""Of those that end in a step, and no more: in the time that one request takes the bound grows by half."""
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
        "_is_held",
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
        self._arrived = self._refused = 0
        self._delay = 0.0
        self._is_held = False
        self._stepped_at = self._tried_at = -inf

    @property
    def delay_s(self) -> float:
        """The standing delay above the baseline, in seconds."""
        return self._delay

    def sample(self, delay_s: float, now: float, *, in_flight: int, ended: int, idle: bool = False) -> None:
        """One measured delay; steps the controller at most every 20 ms.

        ``in_flight`` is the number of requests that are served now; ``ended`` counts the admitted ones that
        have ended since the start; ``idle`` says that the process has had nothing to do at some moment since
        the last sample.
        """
        recent = self._recent
        recent.append((now, 0.0 if idle else delay_s))
        # One from before stays: after a pause of the process a single late sample would be all there is.
        while len(recent) > 1 and recent[1][0] < now - INTERVAL_S:
            recent.popleft()
        if now - self._stepped_at < _STEP_S:
            return
        self._stepped_at = now
        rate, refused = self._flows(now, ended)
        since = now - _HELD_INTERVAL_S if self._is_held else -inf
        smallest = min(delay for at, delay in recent if at >= since)
        self._delay = max(0.0, smallest - self._base(delay_s, now))
        self._steer(now, in_flight, rate, refused)

    def _steer(self, now: float, in_flight: int, rate: float, refused: float) -> None:
        """Sets the bound; ``rate`` is what ends per second, ``refused`` what is refused."""
        if self.limit < inf and self.share == 0.0 and in_flight < self.limit / 2:
            self._let_in(inf, now)
            return
        if self._is_held:
            if now - self._tried_at >= TRIAL_S:
                self._let_in(in_flight + rate * TRIAL_ENDS_S, now)
                return
        elif self._delay >= TARGET_S:
            self._is_held, self._tried_at = True, now
            self.limit = min(self.limit, float(in_flight))
        missing = (HELD_S if self._is_held else TARGET_S) - self._delay
        if missing > 0.0:
            more = min(self.limit * _GROWTH, rate * _STEP_S * _GROWTH_OF_ENDED)
            self.limit += min(missing, HELD_S) * max(rate, more / HELD_S)
        elif in_flight <= self.limit + 1:
            kept = FLOOR_OF_REFUSED * refused * min(self._delay, _REFUSED_S)
            self.limit = max(self.limit + missing * rate, rate * FLOOR_S, kept, FLOOR)

    def _let_in(self, limit: float, now: float) -> None:
        """Up to ``limit``, until a delay above the target stands."""
        self.limit, self._is_held, self._tried_at = limit, False, now
        self._recent.append((now, 0.0))

    def rest_s(self) -> float:
        """For how long who is refused now may be left unheard, in seconds."""
        return max(0.0, (self.share - BESIEGED) / (1.0 - BESIEGED) * REST_S)

    def refuses(self, in_flight: int) -> bool:
        """Whether the request that has just arrived is refused; counts it."""
        self._arrived += 1
        if in_flight < self.limit:
            return False
        self._refused += 1
        return True

    def forget(self, distance_s: float | None = None) -> None:
        """The way that is measured has changed (a connection): everything is learnt anew. ``distance_s`` is
        its delay without any queue, in seconds; None: not known, the first sample counts as that.
        """
        self._recent.clear()
        self._baseline.clear()
        self._flow.clear()
        if distance_s is not None:
            self._baseline.append([-inf, distance_s])
        self._delay = self.share = 0.0
        self.limit, self._is_held = inf, False

    def _flows(self, now: float, ended: int) -> tuple[float, float]:
        """What ended and what was refused per second, lately; sets the share by the same flow."""
        flow = self._flow
        flow.append((now, self._arrived, self._refused, ended))
        # One from before stays: behind a queue of half a second samples are further apart than that.
        while len(flow) > 1 and flow[1][0] < now - _FLOW_S:
            flow.popleft()
        since, arrived, refused, done = flow[0]
        arrivals, refusals = self._arrived - arrived, self._refused - refused
        self.share = refusals / arrivals if arrivals else 0.0
        seconds = now - since
        return ((ended - done) / seconds, refusals / seconds) if seconds > 0.0 else (0.0, 0.0)

    def _base(self, delay_s: float, now: float) -> float:
        """The smallest delay of the last minute, kept as the minima of its tenths."""
        part = float(int(now / (_BASELINE_S / _BASELINE_PARTS)))
        parts = self._baseline
        # While requests are refused the delay is of our own making and must not become the new normal.
        calm = self.limit == inf and now - self._tried_at >= _TRIED_S
        if not parts or (parts[-1][0] < part and calm):
            parts.append([part, delay_s])
            while len(parts) > _BASELINE_PARTS:
                parts.popleft()
        elif delay_s < parts[-1][1]:
            parts[-1][1] = delay_s
        return min(least for _, least in parts)
