"""What routers say about the health of each extension, and when it is worth a write to its status.

A router reports calls and its breaker's state every few seconds, only where something changed. The board adds
up the calls of the last five minutes over all routers, in slots of ten seconds, and keeps the worst breaker
state. What goes into status changes only

- on a transition: another breaker state, another error code, another word for the health, or a score that
  moved by :data:`SCORE_STEP` points or more,
- and at most every :data:`WRITE_EVERY_S` seconds for each extension.

So an idle cluster writes nothing and a busy one little. A process that has just started inherits what status
says (:meth:`HealthBoard.inherit`) as the word of a router of its own: routers are asked to repeat which
breakers are not closed, and what nobody confirms while a router would have reported is over; calls of which
the process itself heard none are over with the window. Time is an argument, in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from beamline_contract.reports import STATUS_TTL_S, HealthDelta, RouterHealth

WINDOW_S: Final = 300.0
"""Calls older than this count no more (contract.md, ``health_score``)."""
SLOT_S: Final = 10.0
WRITE_EVERY_S: Final = 10.0
SCORE_STEP: Final = 5
HEALTHY: Final = 99
DEGRADED: Final = 90
_BEFORE: Final = ""
"""The router that an inherited breaker is kept under; no router has an empty name."""
_SEVERITY: Final = {"closed": 0, "half-open": 1, "open": 2, "isolated": 3}


@dataclass(frozen=True, slots=True)
class ExtensionHealth:
    """What status says. ``score`` is success / (success + failure) x 100 over five minutes, None without
    calls; ``state`` one of healthy, degraded, failing, no_data.
    """

    breaker: str = "closed"
    last_error: str | None = None
    state: str = "no_data"
    score: int | None = None

    def to_status(self) -> dict[str, Any]:
        """The fields of ``status``."""
        health: dict[str, Any] = {"status": self.state}
        if self.score is not None:
            health["score"] = self.score
        status: dict[str, Any] = {"breaker": self.breaker, "health": health}
        if self.last_error is not None:
            status["lastError"] = self.last_error
        return status

    def differs(self, other: ExtensionHealth) -> bool:
        """Whether the change from ``other`` to this one is a transition."""
        if (self.breaker, self.last_error, self.state) != (other.breaker, other.last_error, other.state):
            return True
        return self.score is not None and abs(self.score - (other.score or 0)) >= SCORE_STEP

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> ExtensionHealth | None:
        """What an old status says; None where it says nothing that could be over one day."""
        health = status.get("health")
        if not isinstance(health, Mapping):
            return None
        score = health.get("score")
        said = cls(
            str(status.get("breaker", "closed")),
            str(status["lastError"]) if status.get("lastError") is not None else None,
            str(health.get("status", "no_data")),
            score if isinstance(score, int) else None,
        )
        return None if said in {cls(), replace(cls(), last_error=said.last_error)} else said


@dataclass(slots=True)
class _Entry:
    breakers: dict[str, str] = field(default_factory=dict)
    slots: dict[int, tuple[int, int]] = field(default_factory=dict)
    last_error: str | None = None
    told: ExtensionHealth | None = None
    told_at: float = float("-inf")
    inherited: tuple[ExtensionHealth, float] | None = None
    """What the last process said of calls, and until when it stands where this one hears of none."""


class HealthBoard:
    """Health by extension id."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._doubted = float("-inf")
        """Until when inherited breakers stand."""

    def take(self, report: RouterHealth, now: float) -> dict[str, float]:
        """Takes in a report. Returns which ids are worth a look, and in how many seconds."""
        for delta in report.deltas:
            self._add(report.instance, delta, now)
        return dict(self._due((delta.extension_id for delta in report.deltas), now))

    def forget_router(self, instance: str, now: float) -> dict[str, float]:
        """A router is gone, and its breakers with it. Returns what :meth:`take` does."""
        touched = [
            identifier for identifier, entry in self._entries.items() if entry.breakers.pop(instance, None)
        ]
        return dict(self._due(touched, now))

    def inherit(self, identifier: str, status: Mapping[str, Any], now: float) -> None:
        """Takes over what the process before wrote about an extension of which this one heard nothing."""
        said = ExtensionHealth.from_status(status)
        if said is None or identifier in self._entries or said.breaker not in _SEVERITY:
            return
        entry = _Entry(last_error=said.last_error, told=said, inherited=(said, now + WINDOW_S))
        if said.breaker != "closed":
            entry.breakers[_BEFORE] = said.breaker
            self._doubted = now + STATUS_TTL_S
        self._entries[identifier] = entry

    def keep_routers(self, alive: Collection[str], now: float) -> dict[str, float]:
        """Forgets the breakers of every router that is not ``alive``. Returns what :meth:`take` does."""
        kept = {*alive, *((_BEFORE,) if now < self._doubted else ())}
        touched = []
        for identifier, entry in self._entries.items():
            if gone := entry.breakers.keys() - kept:
                for instance in gone:
                    del entry.breakers[instance]
                touched.append(identifier)
        return dict(self._due(touched, now))

    def keep(self, identifiers: set[str]) -> None:
        """Forgets every extension that is not named."""
        for identifier in self._entries.keys() - identifiers:
            del self._entries[identifier]

    def settle(self, now: float) -> dict[str, float]:
        """What changed by the mere passing of time: old calls fall out of the window."""
        return dict(self._due(list(self._entries), now))

    def read(self, identifier: str, now: float) -> ExtensionHealth | None:
        """What status is to say now; None where nothing was heard and the old word stands."""
        entry = self._entries.get(identifier)
        if entry is None:
            return None
        current = _summary(entry, now)
        fresh = entry.told is None or (current.differs(entry.told) and now >= entry.told_at + WRITE_EVERY_S)
        if fresh:
            entry.told, entry.told_at = current, now
        return entry.told

    def breaker(self, identifier: str) -> str:
        """The worst breaker state over all routers, as last reported."""
        entry = self._entries.get(identifier)
        states = entry.breakers.values() if entry is not None else ()
        return max(states, key=_SEVERITY.__getitem__, default="closed")

    def _add(self, instance: str, delta: HealthDelta, now: float) -> None:
        entry = self._entries.setdefault(delta.extension_id, _Entry())
        entry.breakers[instance] = delta.breaker
        if delta.last_error is not None and delta.failure:
            entry.last_error = delta.last_error
        slot = int(now // SLOT_S)
        success, failure = entry.slots.get(slot, (0, 0))
        entry.slots[slot] = (success + delta.success, failure + delta.failure)

    def _due(self, identifiers: Any, now: float) -> Iterator[tuple[str, float]]:
        for identifier in identifiers:
            entry = self._entries[identifier]
            if entry.told is None or _summary(entry, now).differs(entry.told):
                yield identifier, max(0.0, entry.told_at + WRITE_EVERY_S - now)


def from_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an old status that this module is the author of."""
    return {name: status[name] for name in ("breaker", "health", "lastError") if name in status}


def _summary(entry: _Entry, now: float) -> ExtensionHealth:
    oldest = int((now - WINDOW_S) // SLOT_S)
    entry.slots = {slot: counts for slot, counts in entry.slots.items() if slot > oldest}
    success = sum(counts[0] for counts in entry.slots.values())
    failure = sum(counts[1] for counts in entry.slots.values())
    breaker = max(entry.breakers.values(), key=_SEVERITY.__getitem__, default="closed")
    total = success + failure
    if not total and entry.inherited is not None and now < entry.inherited[1]:
        return replace(entry.inherited[0], breaker=breaker)
    if not total:
        return ExtensionHealth(breaker=breaker, last_error=entry.last_error)
    score = 100 * success // total
    word = "healthy" if score >= HEALTHY else "degraded" if score >= DEGRADED else "failing"
    return ExtensionHealth(breaker, entry.last_error if failure else None, word, score)
