"""The retry budget: retries are for the odd failure, not for an outage.

A bucket of tokens per extension. Each failure takes one, each success gives a tenth back, and a retry needs
more than half. So an extension that always fails gets five retries and then none: in an outage every request
costs one call.

Source of the figures: architecture.md, "Rules of the pipeline" (10, -1, +0.1, > 5), the same as gRPC's retry
throttling. Tokens are counted in tenths, because ten times 0.1 is not 1 in binary.
"""

from __future__ import annotations

from typing import Final

CAPACITY: Final = 100
FAILURE_COST: Final = 10
SUCCESS_GAIN: Final = 1
NEEDED: Final = 50


class RetryBudget:
    """Tokens of one extension in one router."""

    __slots__ = ("_tenths",)

    def __init__(self) -> None:
        self._tenths = CAPACITY

    @property
    def tokens(self) -> float:
        """What is left, 0 to 10."""
        return self._tenths / 10

    def allows(self) -> bool:
        """Whether one more retry may be made now."""
        return self._tenths > NEEDED

    def failed(self) -> None:
        """A call failed in a way that could be retried."""
        self._tenths = max(0, self._tenths - FAILURE_COST)

    def succeeded(self) -> None:
        """A call was answered."""
        if self._tenths < CAPACITY:
            self._tenths += SUCCESS_GAIN
