"""The circuit breaker: pure, one per guarded thing, shared by the router and the SDK's provider registry.

Time comes in as ``now`` (monotonic seconds) and randomness as a callable, so every rule can be tested without
waiting.

States and what moves them:

    closed     counts calls in a sliding window; opens on failures (count and ratio) or on slow calls
    open       refuses until its time is over; then the next caller becomes the first probe
    half-open  one probe at a time; enough good ones close it, a bad one opens it for twice as long
    isolated   refuses until reset; only a person puts it there

A permit is the number of the state in which a call began. Every transition takes a new number, so the result
of a call that began in an earlier state is recognised and moves nothing. A cooldown (429) refuses without
being a state: it is not a failure, and it ends by itself.

The window is 60 buckets wide: memory is bounded whatever the traffic, each call costs O(1) amortised, and an
old call leaves the window up to 1/60 of its length early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from beamline_contract.extension import CircuitBreaker
from beamline_contract.wire import MAX_RETRY_AFTER_MS

BreakerState = Literal["closed", "open", "half-open", "isolated"]

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half-open"
ISOLATED: Final = "isolated"

JITTER: Final = 0.2
"""An open time is shortened by up to this share, so that breakers that opened together do not probe together.
"""
MAX_COOLDOWN_S: Final = MAX_RETRY_AFTER_MS / 1000
DEFAULT_COOLDOWN_S: Final = 1.0
"""Cooldown after a 429 that does not say how long to wait."""
BUCKETS: Final = 60
_MAX_DOUBLINGS: Final = 30


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Settings in seconds and shares. Defaults: architecture.md, "Rules of the pipeline"."""

    failure_threshold: int = 5
    window_s: float = 60.0
    min_failure_ratio: float = 0.5
    open_s: float = 30.0
    max_open_s: float = 300.0
    half_open_successes: int = 3
    slow_ratio: float = 0.8
    slow_min_calls: int = 10
    slow_threshold_ratio: float = 0.8

    @classmethod
    def of(cls, model: CircuitBreaker) -> BreakerSettings:
        """The settings that a resource's ``circuitBreaker`` states."""
        return cls(
            failure_threshold=model.failure_threshold,
            window_s=model.monitoring_period_ms / 1000,
            min_failure_ratio=model.min_failure_ratio,
            open_s=model.recovery_timeout_ms / 1000,
            max_open_s=model.max_recovery_timeout_ms / 1000,
            half_open_successes=model.half_open_successes,
            slow_ratio=model.slow_call.ratio,
            slow_min_calls=model.slow_call.min_calls,
            slow_threshold_ratio=model.slow_call.threshold_ratio,
        )


def opens(settings: BreakerSettings, calls: int, failures: int, slow: int) -> bool:
    """Whether these calls of one window open a breaker, by failures or by slowness."""
    if failures >= settings.failure_threshold and failures >= settings.min_failure_ratio * calls:
        return True
    return slow > 0 and calls >= settings.slow_min_calls and slow >= settings.slow_ratio * calls


def open_seconds(settings: BreakerSettings, openings: int, random: float) -> float:
    """How long the ``openings``-th opening in a row lasts; ``random`` in [0, 1) is the jitter."""
    doubled = settings.open_s * 2.0 ** min(openings - 1, _MAX_DOUBLINGS)
    return min(doubled, settings.max_open_s) * (1.0 - JITTER * random)


class Breaker:
    """One breaker. Every permit must be given back by exactly one of success, failure, cooldown and release.

    ``random`` gives floats in [0, 1); ``on_change`` hears each new state's word, while the transition
    happens.
    """

    __slots__ = (
        "_buckets", "_calls", "_cooldown_until", "_epoch", "_failures", "_on_change", "_openings", "_probing",
        "_random", "_reopens_at", "_slow", "_state", "_successes", "_width", "settings",
    )  # fmt: skip

    def __init__(
        self,
        settings: BreakerSettings,
        *,
        random: Callable[[], float],
        on_change: Callable[[BreakerState], None] | None = None,
    ) -> None:
        self.settings = settings
        self._random = random
        self._on_change = on_change
        self._state: BreakerState = CLOSED
        self._epoch = 1
        self._openings = 0
        self._successes = 0
        self._probing = False
        self._reopens_at = 0.0
        self._cooldown_until = float("-inf")
        self._width = settings.window_s / BUCKETS
        self._buckets: deque[list[int]] = deque()
        self._calls = self._failures = self._slow = 0

    @property
    def state(self) -> BreakerState:
        """The current word. An open breaker whose time is over stays ``open`` until the next caller comes."""
        return self._state

    def acquire(self, now: float) -> int | None:
        """A permit for one call, or None where the call must not be made."""
        if now < self._cooldown_until:
            return None
        if self._state is CLOSED:
            return self._epoch
        if self._state is ISOLATED:
            return None
        if self._state is OPEN:
            if now < self._reopens_at:
                return None
            self._enter(HALF_OPEN)
        if self._probing:
            return None
        self._probing = True
        return self._epoch

    def available(self, now: float) -> bool:
        """Whether :meth:`acquire` would give a permit; changes nothing."""
        if now < self._cooldown_until or self._state is ISOLATED:
            return False
        if self._state is OPEN:
            return now >= self._reopens_at
        return not self._probing

    def trial(self, now: float) -> int | None:
        """A permit ahead of time, for the last hope of a request whose candidates are all open.

        One at a time. A failure leaves everything as it was; a success is the first good probe. None where
        the breaker is isolated, cooling down, or has a trial or probe under way.
        """
        if self._state is not OPEN or now >= self._reopens_at:
            return self.acquire(now)
        if not self.could_try(now):
            return None
        self._probing = True
        return -self._epoch

    def could_try(self, now: float) -> bool:
        """Whether :meth:`trial` would give a permit; changes nothing."""
        if self._state is not OPEN or now >= self._reopens_at:
            return self.available(now)
        return not self._probing and now >= self._cooldown_until

    def success(self, permit: int, now: float, *, slow: bool = False) -> None:
        """The call was answered. ``slow``: it took its share of the timeout (``slow_threshold_ratio``) or
        more.
        """
        if permit == -self._epoch:
            self._enter(HALF_OPEN)
        elif permit != self._epoch:
            return
        if self._state is CLOSED:
            self._count(now, failed=0, slow=slow)
            if slow and opens(self.settings, self._calls, self._failures, self._slow):
                self._open(now)
            return
        self._probing = False
        self._successes += 1
        if self._successes >= self.settings.half_open_successes:
            self._close()

    def failure(self, permit: int, now: float, *, slow: bool = False) -> None:
        """The call failed through the fault of what is guarded."""
        if permit == -self._epoch:
            self._probing = False
        elif permit == self._epoch:
            if self._state is CLOSED:
                self._count(now, failed=1, slow=slow)
                if not opens(self.settings, self._calls, self._failures, self._slow):
                    return
            self._open(now)

    def cooldown(self, permit: int, now: float, seconds: float | None) -> None:
        """The call was answered with "too many requests": not a failure, but a pause of ``seconds``, at most
        300.
        """
        if abs(permit) != self._epoch:
            return
        self._probing = False
        pause = DEFAULT_COOLDOWN_S if seconds is None else min(max(seconds, 0.0), MAX_COOLDOWN_S)
        self._cooldown_until = max(self._cooldown_until, now + pause)

    def release(self, permit: int) -> None:
        """The call says nothing about health (caller's fault, cancelled, deadline over): not counted."""
        if abs(permit) == self._epoch:
            self._probing = False

    def isolate(self) -> None:
        """Refuses every call until :meth:`reset`."""
        self._enter(ISOLATED)

    def reset(self) -> None:
        """Closes at once and forgets everything, a cooldown too."""
        self._cooldown_until = float("-inf")
        self._close()

    def configure(self, settings: BreakerSettings) -> None:
        """Takes new settings without changing the state; a window of another length starts empty."""
        if settings.window_s != self.settings.window_s:
            self._width = settings.window_s / BUCKETS
            self._forget_window()
        self.settings = settings

    def cooling(self, now: float) -> bool:
        """Whether it refuses because of a 429 and not because of its state."""
        return now < self._cooldown_until and self._state is not ISOLATED

    def reopens_at(self) -> float:
        """When the next call may be let through, monotonic seconds; infinite where it is isolated."""
        if self._state is ISOLATED:
            return float("inf")
        return max(self._cooldown_until, self._reopens_at if self._state is OPEN else float("-inf"))

    def _count(self, now: float, *, failed: int, slow: bool) -> None:
        index = int(now / self._width)
        buckets = self._buckets
        if not buckets or buckets[-1][0] < index:
            while buckets and buckets[0][0] <= index - BUCKETS:
                _, calls, failures, slows = buckets.popleft()
                self._calls -= calls
                self._failures -= failures
                self._slow -= slows
            buckets.append([index, 0, 0, 0])
        bucket = buckets[-1]
        bucket[1] += 1
        self._calls += 1
        if failed:
            bucket[2] += 1
            self._failures += 1
        if slow:
            bucket[3] += 1
            self._slow += 1

    def _open(self, now: float) -> None:
        self._openings += 1
        self._reopens_at = now + open_seconds(self.settings, self._openings, self._random())
        self._enter(OPEN)

    def _close(self) -> None:
        self._openings = 0
        self._enter(CLOSED)

    def _enter(self, state: BreakerState) -> None:
        changed = state is not self._state
        self._state = state
        self._epoch += 1
        self._probing = False
        self._successes = 0
        self._forget_window()
        if changed and self._on_change is not None:
            self._on_change(state)

    def _forget_window(self) -> None:
        self._buckets.clear()
        self._calls = self._failures = self._slow = 0
