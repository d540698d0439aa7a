"""The keyed work queue: what wants to be reconciled, each key once, never twice at a time.

The rules are those of client-go's workqueue. A key that is added while it waits is there once. A key that is
added while it is *worked on* is kept aside and comes back when the work is done, so that nothing that
happened meanwhile is missed and no key runs in two workers. A delayed key has one timer, the earliest; taking
the key out drops it.

A failing key comes back after a delay that doubles from one second to four with jitter: never more than one
attempt a second per key, and never more than five seconds late once what failed works again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from beamline_contract.objects import ObjectKey

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_CAP_S: Final = 4.0
JITTER: Final = 0.2
"""A delay is lengthened by up to this share, never shortened."""


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
        self._ready: deque[ObjectKey] = deque()
        self._dirty: set[ObjectKey] = set()
        self._processing: set[ObjectKey] = set()
        self._timers: dict[ObjectKey, tuple[float, Timer]] = {}
        self._failures: dict[ObjectKey, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """Keys that are due and not worked on."""
        return len(self._ready)

    async def wait_idle(self) -> None:
        """Returns when nothing is due and nothing is worked on; delayed keys may exist."""
        await self._idle.wait()

    def add(self, key: ObjectKey) -> None:
        """``key`` is due now."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        self._idle.clear()
        if key not in self._processing:
            self._put(key)

    def add_after(self, key: ObjectKey, delay_s: float) -> None:
        """``key`` is due in ``delay_s`` seconds, unless it is due earlier anyway."""
        if delay_s <= 0:
            self.add(key)
            return
        clock = self._clock or asyncio.get_running_loop()
        due = clock.time() + delay_s
        known = self._timers.get(key)
        if known is not None:
            if known[0] <= due:
                return
            known[1].cancel()
        self._timers[key] = (due, clock.call_later(delay_s, self._fire, key))

    def retry(self, key: ObjectKey) -> float:
        """``key`` failed: it is due after a growing delay, which is returned."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        base = min(BACKOFF_FIRST_S * 2.0 ** min(failures, 16), BACKOFF_CAP_S)
        delay = base * (1 + JITTER * self._jitter())
        self.add_after(key, delay)
        return delay

    def forget(self, key: ObjectKey) -> None:
        """``key`` succeeded: its next failure starts from the first delay again."""
        self._failures.pop(key, None)

    def failures(self, key: ObjectKey) -> int:
        """Failures in a row."""
        return self._failures.get(key, 0)

    async def get(self) -> ObjectKey:
        """The next key; call :meth:`done` when it has been worked on."""
        while not self._ready:
            waiter = asyncio.get_running_loop().create_future()
            self._getters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                waiter.cancel()
                if self._ready:
                    self._wake()
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        self._cancel_timer(key)
        return key

    def done(self, key: ObjectKey) -> None:
        """The work on ``key`` ended, well or not."""
        self._processing.discard(key)
        if key in self._dirty:
            self._put(key)
        elif not self._dirty and not self._processing:
            self._idle.set()

    def close(self) -> None:
        """Drops everything that waits."""
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._dirty.clear()
        self._failures.clear()
        if not self._processing:
            self._idle.set()

    def _put(self, key: ObjectKey) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _fire(self, key: ObjectKey) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: ObjectKey) -> None:
        known = self._timers.pop(key, None)
        if known is not None:
            known[1].cancel()
