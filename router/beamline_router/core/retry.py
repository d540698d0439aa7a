"""Whether to call the same extension again, and after which pause.

Full jitter: the pause is uniform between 0 and a bound that doubles from 25 ms up to 1 s, so that callers
that failed together do not come back together. A 429 is not retried in place: the extension asked for a
pause, and the breaker keeps it; what may happen is a fallback.
"""

from __future__ import annotations

from typing import Final

from beamline_contract.errors import CLIENT_FAULTS, ErrorCode, WireError

from .budget import RetryBudget
from .deadline import MARGIN_S

BASE_S: Final = 0.025
CAP_S: Final = 1.0

_NOT_IN_PLACE: Final = CLIENT_FAULTS | {ErrorCode.RESOURCE_EXHAUSTED}
"""Not tried again on the same extension, whatever the error says of itself: the same request would meet the
same answer, and costs no token; a rejection judged the input; a 429 asks for a pause.
"""


def backoff(attempt: int, random: float) -> float:
    """Seconds to wait after the ``attempt``-th call (1 is the first); ``random`` in [0, 1)."""
    return float(random * min(CAP_S, BASE_S * 2.0 ** (attempt - 1)))


def pause_before_retry(
    error: WireError,
    *,
    timed_out: bool,
    attempt: int,
    retry: int,
    retry_on_timeout: bool,
    budget: RetryBudget,
    remaining_s: float,
    random: float,
) -> float | None:
    """Seconds to wait before one more call, or None where there is to be none.

    ``attempt`` calls have been made and ``retry`` extra ones are allowed. ``remaining_s`` is what is left of
    the request's deadline: a pause that would leave no time for the call is not begun.
    """
    if attempt > retry or not error.retryable or error.code in _NOT_IN_PLACE:
        return None
    if timed_out and not retry_on_timeout:
        return None
    if not budget.allows():
        return None
    pause = backoff(attempt, random)
    return pause if pause + MARGIN_S < remaining_s else None
