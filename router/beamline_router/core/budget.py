"""The retry budget: retries are for the odd failure, not for an outage.

A bucket of tokens. Each failure takes one, each success gives a part of one back, and a retry needs more than
the threshold. With the defaults an extension that always fails gets five retries and then none: in an outage
every request costs one call.

There is one bucket per extension and router. A policy that states a budget of its own has buckets of its own,
one for each extension that it calls.

Source of the defaults: architecture.md, "Rules of the pipeline" (10, -1, +0.1, > 5), the same as gRPC's retry
throttling. Tokens are counted in thousandths, because ten times 0.1 is not 1 in binary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
