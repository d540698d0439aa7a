"""Deadlines: one per request, in monotonic seconds; every hop gets what is left of it.

What a caller asks for and what the policy grants are both upper bounds: the earlier one holds, and work that
arrives after it is refused unexecuted. An attempt may take its own timeout, but never more than what remains
less a margin of 10 ms, so that an answer can still be sent. What is told to the extension is the time of the
attempt: nobody waits for a reply after that.

Nothing here reads a clock: times are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import HEADER_DEADLINE_AT, HEADER_DEADLINE_MS
from beamline_contract.wire import DEADLINE_MARGIN_MS

MAX_DEADLINE_MS: Final = 600_000
"""The longest deadline a policy may grant (contract.md, "Time and retry"); a caller's longer wish is cut."""
MARGIN_S: Final = DEADLINE_MARGIN_MS / 1000
SHORTEST_ATTEMPT_S: Final = 0.001
"""An attempt with less time than this is not begun: the extension could not be told a whole millisecond."""

_DEADLINE: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,6})?")
_KEY_DEADLINE_MS: Final = HEADER_DEADLINE_MS.lower()
_KEY_DEADLINE_AT: Final = HEADER_DEADLINE_AT.lower()


def remaining_ms(headers: Mapping[str, str], unix_ms: float) -> float | WireError | None:
    """Milliseconds until the caller's deadline: the smaller of both headers; negative once passed; None
    without one; INVALID_ARGUMENT for what is no number. ``headers`` have lower-case names.

    ``unix_ms`` is the wall clock: only Beamline-Deadline-At, which is Unix time by definition, needs it.
    """
    left: float | None = None
    for key, name, base in (
        (_KEY_DEADLINE_MS, HEADER_DEADLINE_MS, 0.0),
        (_KEY_DEADLINE_AT, HEADER_DEADLINE_AT, unix_ms),
    ):
        raw = headers.get(key)
        if raw is None:
            continue
        if not _DEADLINE.fullmatch(raw):
            return WireError.of(
                ErrorCode.INVALID_ARGUMENT,
                f"header {name} must be a number of milliseconds, got {raw[:40]!r}",
                details={"field": name},
            )
        value = float(raw) - base
        left = value if left is None else min(left, value)
    return left if left is None else min(left, float(MAX_DEADLINE_MS))


def expired() -> WireError:
    """The refusal of work that arrived too late, of which nothing was executed."""
    return WireError.of(
        ErrorCode.DEADLINE_EXCEEDED,
        "the deadline had passed when the request arrived; nothing was executed",
        attempts=0,
    )


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
