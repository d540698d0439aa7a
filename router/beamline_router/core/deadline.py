"""Deadlines: one per request, in monotonic seconds; every hop gets what is left of it.

An attempt may take its own timeout, but never more than what remains less a margin of 10 ms, so that an
answer can still be sent. What is told to the extension is the time of the attempt: nobody waits for a reply
after that.
"""

from __future__ import annotations

from typing import Final

from beamline_contract.wire import DEADLINE_MARGIN_MS

MARGIN_S: Final = DEADLINE_MARGIN_MS / 1000
SHORTEST_ATTEMPT_S: Final = 0.001
"""An attempt with less time than this is not begun: the extension could not be told a whole millisecond."""


def effective_deadline(asked: float | None, policy_s: float, now: float) -> float:
    """The earlier of what the caller asked for (monotonic seconds, or None) and what the policy grants from
    now.
    """
    granted = now + policy_s
    return granted if asked is None or asked > granted else asked


def attempt_timeout(own_s: float, deadline: float, now: float) -> float:
    """Seconds for one attempt; below SHORTEST_ATTEMPT_S there is no time left to begin one."""
    left = deadline - now - MARGIN_S
    return min(left, own_s)


def header_values(timeout_s: float, wall_s: float) -> tuple[str, str]:
    """The values of ``Beamline-Deadline-Ms`` and ``Beamline-Deadline-At`` (Unix milliseconds) for one
    attempt.
    """
    milliseconds = max(1, int(timeout_s * 1000))
    return str(milliseconds), str(int(wall_s * 1000) + milliseconds)
