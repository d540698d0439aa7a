"""A client-side limit: requests and tokens of the last minute, so that an upstream's limit is not run into.

A sliding minute of one-second slots: exact to a second, bounded memory, and the limits may change between two
requests without a new start. Tokens are estimated before a call and corrected after it. Time is an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60
BYTES_PER_TOKEN: Final = 4
"""The estimate before a call: about four bytes of English text are one token."""


@dataclass(slots=True)
class Slot:
    """What was admitted in one second."""

    second: int
    requests: int = 0
    tokens: int = 0


class RateLimit:
    """One limiter for one process."""

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque()
        self._requests = 0
        self._tokens = 0

    def admit(
        self, now: float, tokens: int, *, per_minute: int | None, tokens_per_minute: int | None
    ) -> float:
        """0 where the request may go (it is counted then), else seconds until it may be tried again.

        ``now`` is monotonic seconds. A request larger than the whole token limit goes when nothing else was
        admitted in the last minute: it could never go otherwise.
        """
        second = int(now)
        while self._slots and self._slots[0].second <= second - WINDOW_S:
            old = self._slots.popleft()
            self._requests -= old.requests
            self._tokens -= old.tokens
        wait = 0.0
        if per_minute is not None and self._requests >= per_minute:
            wait = self._until(now, requests=self._requests - per_minute + 1)
        if tokens_per_minute is not None and self._tokens and self._tokens + tokens > tokens_per_minute:
            wait = max(wait, self._until(now, tokens=self._tokens + tokens - tokens_per_minute))
        if wait:
            return wait
        slot = self._slots[-1] if self._slots and self._slots[-1].second == second else None
        if slot is None:
            slot = Slot(second)
            self._slots.append(slot)
        slot.requests += 1
        slot.tokens += tokens
        self._requests += 1
        self._tokens += tokens
        return 0.0

    def correct(self, estimated: int, used: int) -> None:
        """The call is over and has used so many tokens: the newest slot takes the difference."""
        if self._slots:
            difference = max(used - estimated, -self._slots[-1].tokens)
            self._slots[-1].tokens += difference
            self._tokens += difference

    def _until(self, now: float, *, requests: int = 0, tokens: int = 0) -> float:
        """Seconds until at least so much has left the window."""
        leave = now
        for slot in self._slots:
            leave = slot.second + WINDOW_S
            requests -= slot.requests
            tokens -= slot.tokens
            if requests <= 0 and tokens <= 0:
                break
        return max(leave - now, 0.001)
