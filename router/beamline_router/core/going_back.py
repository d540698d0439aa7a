"""A registry that went back: when the table that serves gives way to one with a lower revision.

A revision below ours means another registry under the same address: a backup, or an empty database that the
operator fills from the objects, one transaction after the other. To take its rows as they come would answer
NOT_FOUND to everybody until the last one is there. So the present table serves on while the new one is empty,
and until it has stood still for :data:`SETTLED_S`, or, where somebody never stops to write, for
:data:`LONGEST_S`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SETTLED_S: Final = 3.0
"""The operator's transactions follow each other within a second or so."""
LONGEST_S: Final = 120.0
"""Longer than thousands of objects take to come back."""
LOOK_AGAIN_S: Final = 1.0


@dataclass(slots=True)
class GoingBack:
    """What is known of a registry that is behind the table; nothing in normal life."""

    revision: int = -1
    """Its revision when it was last read; -1: it is not behind."""
    since: float = 0.0
    """When it was first read at this revision, monotonic seconds."""
    filled_since: float | None = None
    """When it was first read with anything in it; None: never since it went back."""

    @property
    def under_way(self) -> bool:
        """Whether a registry that went back is being waited for."""
        return self.revision >= 0

    def holds(self, ours: int, theirs: int, *, empty: bool, now: float) -> bool:
        """Whether the table of revision ``ours`` goes on serving before one of revision ``theirs``.

        A registry that was seen behind is waited for also when its revision has passed ours.
        """
        if theirs >= ours and not self.under_way:
            return False
        if theirs != self.revision:
            self.revision, self.since = theirs, now
        if empty:
            self.filled_since = None
            return True
        if self.filled_since is None:
            self.filled_since = now
        if now - self.since < SETTLED_S and now - self.filled_since < LONGEST_S:
            return True
        self.revision, self.filled_since = -1, None
        return False
