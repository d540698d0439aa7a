"""Hooks of the schemathesis run: routes that would wait, or stream until they are ended, get a small bound.

Nothing is left out: what is not a number between the limits is sent as it was made.
"""

from __future__ import annotations

import math
from typing import Any

import schemathesis

SHORT_S = 0.02


@schemathesis.hook
def before_call(context: Any, case: Any, **kwargs: Any) -> None:
    """Called before each request."""
    query = case.query or {}
    name = "seconds" if case.path.endswith("/events") else "timeout_s"
    if name == "timeout_s" and "wait" not in query:
        return
    if name not in query or _number(query[name]) > SHORT_S:
        case.query = {**query, name: SHORT_S}


def _number(value: Any) -> float:
    """A lawful number of seconds; 0 for anything else, which the application refuses by itself."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) and number <= 60 else 0.0
