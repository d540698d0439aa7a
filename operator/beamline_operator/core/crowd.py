"""Whether objects arrive faster than each can be served and described at once.

A bucket that leaks: every object that is new or changed is a drop, and :data:`PER_SECOND` of them leak away.
While more than :data:`ROOM` are in it, what arrives is a crowd: rows go first, one status tells at the end
what first sight and the rest would have told in two, and describing takes only a few workers, so that the API
server keeps its time for those who write. A crowd is over at most :data:`ROOM` / :data:`PER_SECOND` seconds
after the last of it came: the bucket holds no more than twice its room.
"""

from __future__ import annotations

from typing import Final

PER_SECOND: Final = 40.0
"""Arrivals that go on at this rate are never a crowd: people, and what deploys for them, are slower."""
ROOM: Final = 32.0
"""So many may come at once, a chart or a folder, before it is one."""


class Crowd:
    """Counts arrivals. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0

    def arrive(self, now: float) -> None:
        """One more object wants to be served."""
        self._level = min(self._left(now) + 1.0, 2 * ROOM)
        self._at = now

    def is_here(self, now: float) -> bool:
        """Whether it is a crowd that arrives."""
        return self._left(now) > ROOM

    def _left(self, now: float) -> float:
        return max(0.0, self._level - max(0.0, now - self._at) * PER_SECOND)
