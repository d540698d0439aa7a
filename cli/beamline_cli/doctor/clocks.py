"""How far two clocks may be apart.

Nothing in Beamline orders writes by wall clocks (revisions and epochs do that), so a difference breaks
little: expiry of keys and tokens, ages in status, and the absolute deadline of a message that waited in a
buffer.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from .patient import Finding, failed, ok, warning

NOTICED: Final = timedelta(seconds=2)
TOO_MUCH: Final = timedelta(seconds=30)
_HELP: Final = "synchronise the clocks (chrony, systemd-timesyncd), here and there"


def skew(whose: str, by: timedelta, grain: timedelta = timedelta()) -> Finding:
    """The finding for a difference of ``by``, measured to within ``grain``."""
    apart = max(abs(by) - grain, timedelta())
    ahead = "ahead of" if by > timedelta() else "behind"
    sentence = f"{whose} is {apart.total_seconds():.1f} s {ahead} this machine's"
    if apart > TOO_MUCH:
        return failed(f"{sentence}: keys and tokens expire at the wrong time", _HELP)
    if apart > NOTICED:
        return warning(sentence, _HELP)
    return ok(f"{whose} agrees with this machine's to {NOTICED.total_seconds():.0f} s")
