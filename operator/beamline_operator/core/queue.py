"""The keyed work queue: what wants to be reconciled, each key once, never twice at a time.

The rules are those of client-go's workqueue. A key that is added while it waits is there once. A key that is
added while it is *worked on* is kept aside and comes back when the work is done, so that nothing that
happened meanwhile is missed and no key runs in two workers. A delayed key has one timer, the earliest; taking
the key out drops it.

There are two lanes. What somebody waits for (an object that is new, changed or deleted) goes before what is
said about the rest (routers' reports, timers, the full compare), so that a mass of changes is served before
all of it is described. Of eight keys at least one is from the other lane, so neither ever stands still.
:attr:`WorkQueue.later_at_once` says how many of the other lane may be worked on at a time.

A failing key comes back after a delay that doubles from one second to two and a half, with jitter up to
three, whatever wakes it meanwhile: never more than one attempt a second per key, and never more than five
seconds late once what failed works again, also where that takes two attempts.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from beamline_contract.objects import ObjectKey

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_CAP_S: Final = 2.5
JITTER: Final = 0.2
"""A delay is lengthened by up to this share, never shortened."""
SHARE: Final = 8
"""One key of so many is taken from the lane that waits."""


class Timer(Protocol):
    """What ``call_later`` returns."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of an event loop that delays need; a test turns its own."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[ObjectKey], None], key: ObjectKey, /) -> Timer: ...


class WorkQueue:
    """Keys to work on, in the order in which they became due. For one event loop."""

    def __init__(self, clock: Clock | None = None, *, jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._jitter = jitter
        self._first: deque[ObjectKey] = deque()
        self._later: deque[ObjectKey] = deque()
        """May hold a key that was moved to the first lane: whoever takes it out looks whether it is due."""
        self._dirty: dict[ObjectKey, bool] = {}
        """Keys that are due, and whether they are of the first lane."""
        self.later_at_once: Callable[[], int] = lambda: sys.maxsize
        self._taken = 0
        self._processing: dict[ObjectKey, bool] = {}
        """Keys in a worker's hands, and whether they came from the first lane."""
        self._timers: dict[ObjectKey, tuple[float, Timer]] = {}
        self._failures: dict[ObjectKey, int] = {}
        self._not_before: dict[ObjectKey, float] = {}
        """When a key that failed may be tried again at the earliest."""
        self._getters: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """Keys that are due and not worked on."""
        return len(self._dirty) - sum(key in self._dirty for key in self._processing)

    async def wait_idle(self) -> None:
        """Returns when nothing is due and nothing is worked on; delayed keys may exist."""
        await self._idle.wait()

    def add(self, key: ObjectKey, *, first: bool = True) -> None:
        """``key`` is due now, or a second after its last failure; ``first`` before everything that is not."""
        if key in self._not_before and (early := self._not_before[key] - self._time()) > 0:
            self.add_after(key, early)
            return
        known = self._dirty.get(key)
        if known is not None and known >= first:
            return
        self._dirty[key] = first
        self._idle.clear()
        if key not in self._processing:
            self._put(key)

    def add_after(self, key: ObjectKey, delay_s: float) -> None:
        """``key`` is due in ``delay_s`` seconds, unless it is due earlier anyway."""
        if delay_s <= 0:
            self.add(key, first=False)
            return
        clock = self._clock or asyncio.get_running_loop()
        due = clock.time() + delay_s
        known = self._timers.get(key)
        if known is not None:
            if known[0] <= due:
                return
            known[1].cancel()
        self._timers[key] = (due, clock.call_later(delay_s, self._fire, key))

    def retry(self, key: ObjectKey, *, soon: bool = False) -> float:
        """``key`` failed: it is due after a growing delay, which is returned; ``soon``: after the first one,
        because the attempt was only half of one.
        """
        failures = 0 if soon else self._failures.get(key, 0)
        if not soon:
            self._failures[key] = failures + 1
        base = min(BACKOFF_FIRST_S * 2.0 ** min(failures, 16), BACKOFF_CAP_S)
        delay = base * (1 + JITTER * self._jitter())
        self._not_before[key] = self._time() + BACKOFF_FIRST_S
        if self._dirty.pop(key, None) is not None:  # woken while it was worked on: a second early, too
            delay = min(delay, BACKOFF_FIRST_S)
        self.add_after(key, delay)
        return delay

    def forget(self, key: ObjectKey) -> None:
        """``key`` succeeded: its next failure starts from the first delay again."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)

    def failures(self, key: ObjectKey) -> int:
        """Failures in a row."""
        return self._failures.get(key, 0)

    def busy(self, key: ObjectKey) -> bool:
        """Whether ``key`` is worked on, or failed and waits for another attempt."""
        return key in self._processing or key in self._not_before

    async def get(self) -> ObjectKey:
        """The next key; call :meth:`done` when it has been worked on."""
        while (key := self._take()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._getters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                waiter.cancel()
                if len(self):
                    self._wake()
                raise
        self._processing[key] = self._dirty.pop(key)
        self._cancel_timer(key)
        return key

    def done(self, key: ObjectKey) -> None:
        """The work on ``key`` ended, well or not."""
        self._processing.pop(key, None)
        if key in self._dirty:
            self._put(key)
        elif self._dirty:  # one more of the lane that waits may be taken now
            self._wake()
        elif not self._processing:
            self._idle.set()

    def close(self) -> None:
        """Drops everything that waits."""
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._first.clear()
        self._later.clear()
        self._dirty.clear()
        self._failures.clear()
        self._not_before.clear()
        if not self._processing:
            self._idle.set()

    def _time(self) -> float:
        return (self._clock or asyncio.get_running_loop()).time()

    def _put(self, key: ObjectKey) -> None:
        (self._first if self._dirty[key] else self._later).append(key)
        self._wake()

    def _take(self) -> ObjectKey | None:
        """The next key that may be worked on, None where there is none."""
        lanes = [self._first]
        if sum(not first for first in self._processing.values()) < self.later_at_once():
            lanes.insert(0 if (self._taken + 1) % SHARE == 0 else 1, self._later)
        for lane in lanes:
            while lane:
                key = lane.popleft()
                if key in self._dirty and key not in self._processing:
                    self._taken += 1
                    return key
        return None

    def _wake(self) -> None:
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _fire(self, key: ObjectKey) -> None:
        self._timers.pop(key, None)
        self.add(key, first=False)

    def _cancel_timer(self, key: ObjectKey) -> None:
        known = self._timers.pop(key, None)
        if known is not None:
            known[1].cancel()
