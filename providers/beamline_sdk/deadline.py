"""When a request must be answered, from the headers that carry its deadline.

Two headers say the same in two ways. ``Beamline-Deadline-Ms`` is what remained when the message was sent:
counted from its receipt it needs no common clock, but knows nothing of time spent in a buffer.
``Beamline-Deadline-At`` is a moment of Unix time: it sees the buffer, but needs clocks that agree. The
earlier of the two holds; a setting gives the second some slack where clocks differ.

Times are arguments here, so nothing reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from beamline_contract.names import HEADER_DEADLINE_AT, HEADER_DEADLINE_MS

MAX_DEADLINE_MS: Final = 600_000
"""Upper bound of a request's deadline (contract: "Time and retry"); what claims more, or nothing, gets this.
"""


class BadDeadlineError(ValueError):
    """A deadline header is not a number of milliseconds."""


def remaining_ms(headers: Mapping[str, str] | None, *, unix_ms: float, skew_ms: float = 0.0) -> float:
    """Milliseconds that a request received now has left: at most 600000, 0 or less when it has expired.

    ``unix_ms`` is this host's wall clock. Raises :class:`BadDeadlineError`.
    """
    if not headers:
        return MAX_DEADLINE_MS
    remaining = float(MAX_DEADLINE_MS)
    left = headers.get(HEADER_DEADLINE_MS)
    if left is not None:
        remaining = min(remaining, _number(HEADER_DEADLINE_MS, left))
    at = headers.get(HEADER_DEADLINE_AT)
    if at is not None:
        remaining = min(remaining, _number(HEADER_DEADLINE_AT, at) + skew_ms - unix_ms)
    return remaining


def _number(header: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -1e18 < value < 1e18:
        raise BadDeadlineError(f"{header} must be a number of milliseconds")
    return value
