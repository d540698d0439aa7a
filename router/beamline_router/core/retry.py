"""Whether to call the same extension again, and after which pause.

Full jitter: the pause is uniform between 0 and a bound that doubles from 25 ms up to 1 s, so that callers
that failed together do not come back together. A 429 is not retried in place: the extension asked for a
pause, and the breaker keeps it; what may happen is a fallback. An error of another kind that says when to
come back is not tried again sooner, and not at all in place where that is more than the longest pause.

Retries are for the odd failure, not for an outage, so they have a budget: a bucket of tokens. Each failure
takes one, each success gives a part of one back, and a retry needs more than the threshold. With the defaults
an extension that always fails gets five retries and then none: in an outage every request costs one call.
There is one bucket per extension and router. A policy that states a budget of its own has buckets of its own,
one for each extension that it calls.

Source of the defaults: architecture.md, "Rules of the pipeline" (10, -1, +0.1, > 5), the same as gRPC's retry
throttling. Tokens are counted in thousandths, because ten times 0.1 is not 1 in binary.

Time and randomness are arguments; nothing here waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from beamline_contract.errors import CLIENT_FAULTS, ErrorCode, WireError

from .deadline import MARGIN_S

BASE_S: Final = 0.025
CAP_S: Final = 1.0

_NOT_IN_PLACE: Final = CLIENT_FAULTS | {ErrorCode.RESOURCE_EXHAUSTED}
"""Not tried again on the same extension, whatever the error says of itself: the same request would meet the
same answer, and costs no token; a rejection judged the input; a 429 asks for a pause.
"""

UNITS: Final = 1_000
"""Thousandths of a token in a token; what a failure takes."""


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """In thousandths of a token: the full bucket, what a success gives, what a retry needs more than."""

    capacity: int = 10 * UNITS
    gain: int = UNITS // 10
    needed: int = 5 * UNITS

    @classmethod
    def of(cls, tokens: int, refill: float, threshold: int) -> BudgetSettings:
        """The settings that a policy's ``retryBudget`` states, in tokens."""
        return cls(tokens * UNITS, round(refill * UNITS), threshold * UNITS)


DEFAULT_BUDGET: Final = BudgetSettings()


class RetryBudget:
    """One bucket; full at first."""

    __slots__ = ("_left", "settings")

    def __init__(self, settings: BudgetSettings = DEFAULT_BUDGET) -> None:
        self.settings = settings
        self._left = settings.capacity

    @property
    def tokens(self) -> float:
        """What is left, 0 to the size of the bucket."""
        return self._left / UNITS

    def allows(self) -> bool:
        """Whether one more retry may be made now."""
        return self._left > self.settings.needed

    def failed(self) -> None:
        """A call failed in a way that could be retried."""
        self._left = max(0, self._left - UNITS)

    def succeeded(self) -> None:
        """A call was answered."""
        settings = self.settings
        if self._left < settings.capacity:
            self._left = min(settings.capacity, self._left + settings.gain)

    def configure(self, settings: BudgetSettings) -> None:
        """Takes new settings and keeps what is left, at most a full bucket."""
        self.settings = settings
        self._left = min(self._left, settings.capacity)


def backoff(attempt: int, random: float) -> float:
    """Seconds to wait after the ``attempt``-th call (1 is the first); ``random`` in [0, 1)."""
    return float(random * min(CAP_S, BASE_S * 2.0 ** (attempt - 1)))


def pause_before_retry(
    error: WireError,
    *,
    timed_out: bool,
    attempt: int,
    retry: int,
    retry_on_timeout: bool,
    budget: RetryBudget,
    remaining_s: float,
    random: float,
) -> float | None:
    """Seconds to wait before one more call, or None where there is to be none.

    ``attempt`` calls have been made and ``retry`` extra ones are allowed. ``remaining_s`` is what is left of
    the request's deadline: a pause that would leave no time for the call is not begun.
    """
    if attempt > retry or not error.retryable or error.code in _NOT_IN_PLACE:
        return None
    if timed_out and not retry_on_timeout:
        return None
    if not budget.allows():
        return None
    asked_s = (error.retry_after_ms or 0) / 1000
    if asked_s > CAP_S:
        return None
    pause = max(backoff(attempt, random), asked_s)
    return pause if pause + MARGIN_S < remaining_s else None
