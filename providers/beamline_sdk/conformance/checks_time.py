"""The caller's time: what is too late is not begun, and what takes too long is given up."""

from __future__ import annotations

import time
from typing import Final

from .results import FailedError
from .session import Session
from .shapes import error_code

_SLOW_MS: Final = 2_000
_DEADLINE_MS: Final = 250
_SLACK: Final = 0.6
"""Share of the work's own time within which an answer shows that it was not waited for: machines are busy."""


async def expired(session: Session) -> str:
    """By what remains, and by the moment."""
    past = int(time.time() * 1000) - 60_000
    for header, headers in (
        ("Beamline-Deadline-Ms: 0", {"Beamline-Deadline-Ms": "0"}),
        ("Beamline-Deadline-Ms: -5", {"Beamline-Deadline-Ms": "-5"}),
        (
            "Beamline-Deadline-At a minute ago",
            {"Beamline-Deadline-Ms": "30000", "Beamline-Deadline-At": str(past)},
        ),
    ):
        answer = await session.well_formed(session.slow_request(_SLOW_MS), headers)
        if error_code(answer.body) != "DEADLINE_EXCEEDED":
            said = error_code(answer.body) or "a result"
            raise FailedError(f"a request with {header} was answered with {said}")
        if await session.can_be_slow() and answer.seconds * 1000 > _SLOW_MS * _SLACK:
            raise FailedError(f"a request with {header} was refused only after {answer.seconds:.1f} s")
    return "by what remains and by the moment"


async def deadline(session: Session) -> str:
    """A request that takes longer than its deadline is answered with DEADLINE_EXCEEDED, in time."""
    slow = await session.can_be_slow()
    answer = await session.well_formed(
        session.slow_request(_SLOW_MS), {"Beamline-Deadline-Ms": str(_DEADLINE_MS)}
    )
    if not slow:
        return "answered in time; it can't be made slow (--slow says how), so giving up was not seen"
    if answer.seconds * 1000 > _SLOW_MS * _SLACK:
        raise FailedError(f"{answer.seconds * 1000:.0f} ms with a deadline of {_DEADLINE_MS} ms")
    if error_code(answer.body) != "DEADLINE_EXCEEDED":
        raise FailedError(f"gave up with {error_code(answer.body) or 'a result'}, not with DEADLINE_EXCEEDED")
    return f"gave up after {answer.seconds * 1000:.0f} ms of {_DEADLINE_MS}"
