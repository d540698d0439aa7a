"""The breaker as :mod:`.rules_model` needs it: a plain count of failures, which never age."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

Blame = Literal["good", "bad", "nobody", "cooldown"]
LONGEST_S = 300.0
LONGEST_COOLDOWN_S = 300.0
DEFAULT_COOLDOWN_S = 1.0
GOOD_PROBES = 3


@dataclass
class Breaker:
    """``threshold`` failures open it for ``recovery_s``, each time in a row for twice as long."""

    threshold: int
    recovery_s: float
    state: str = "closed"
    number: int = 0
    failures: int = 0
    openings: int = 0
    good: int = 0
    tried: bool = False
    reopens: float = 0.0
    cooled: float = -inf

    @property
    def word(self) -> str | None:
        """Its state, where that is told."""
        return None if self.state == "closed" else self.state

    def admits(self, now: float, *, trial: bool) -> int | None:
        """The number of the state in which the call begins; None where there must be none."""
        if now < self.cooled:
            return None
        if self.state == "open" and now >= self.reopens:
            self._enter("half-open")
        if self.state != "closed":
            if self.tried or (self.state == "open" and not trial):
                return None
            self.tried = True
        return self.number

    def may_try(self, now: float) -> bool:
        """Whether a trial would be admitted."""
        return not self.tried and now >= self.cooled

    def learns(self, number: int, blame: Blame, now: float, pause_s: float | None) -> None:
        """A call that began in state ``number`` has ended."""
        if number != self.number:
            return
        self.tried = False
        if blame == "cooldown":
            pause_s = DEFAULT_COOLDOWN_S if pause_s is None else min(pause_s, LONGEST_COOLDOWN_S)
            self.cooled = max(self.cooled, now + pause_s)
        elif blame == "bad" and self.state != "open":
            self.failures += 1
            if self.state == "half-open" or self.failures >= self.threshold:
                self.openings += 1
                self.reopens = now + min(self.recovery_s * 2 ** (self.openings - 1), LONGEST_S)
                self._enter("open")
        elif blame == "good" and self.state != "closed":
            if self.state == "open":  # a last trial
                self._enter("half-open")
            self.good += 1
            if self.good >= GOOD_PROBES:
                self.openings = 0
                self._enter("closed")

    def _enter(self, state: str) -> None:
        self.state = state
        self.tried = False
        self.failures = self.good = 0
        self.number += 1
