"""How values are spelt for people: times, numbers, JSON. Filters of the templates; pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

NOTHING: Final = "\N{EN DASH}"
"""What stands where there is no value."""
_STEPS: Final = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (30 * 86_400, 86_400, "d"))


def moment(text: str | None) -> datetime | None:
    """A time in RFC 3339; None where it is none."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def exact(text: str | None) -> str:
    """A time for a tooltip: to the second, in UTC."""
    found = moment(text)
    return found.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if found else (text or NOTHING)


def ago(text: str | None, now: datetime) -> str:
    """How long ago, in one unit; the date where it is more than a month. ``static/time.js`` does the same."""
    found = moment(text)
    if found is None:
        return text or NOTHING
    seconds = (now - found).total_seconds()
    if seconds < 0:
        return "just now"
    for limit, unit, word in _STEPS:
        if seconds < limit:
            return f"{int(seconds // unit)} {word} ago"
    return found.astimezone(UTC).strftime("%Y-%m-%d")


def figure(value: float | None, digits: int = 1) -> str:
    """A number with thin spaces between thousands, without zeros that say nothing."""
    if value is None:
        return NOTHING
    text = f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return text.rstrip("0").rstrip(".") if "." in text else text


def many(count: int, word: str) -> str:
    """So many of something; ``word`` is the singular of a regular noun."""
    return f"{figure(count)} {word}{'' if count == 1 else 's'}"


def millis(value: float | None) -> str:
    """Milliseconds, or seconds from ten of them on."""
    if value is None:
        return NOTHING
    if value >= 10_000:
        return f"{figure(value / 1000)}\N{NO-BREAK SPACE}s"
    return f"{figure(value, 0 if value >= 100 else 1)}\N{NO-BREAK SPACE}ms"


def share(part: float, whole: float, digits: int = 1) -> str:
    """Percent of ``whole``."""
    return f"{figure(100.0 * part / whole, digits)}\N{NO-BREAK SPACE}%" if whole else NOTHING


def who(subject: str) -> str:
    """Somebody's name: a service account without the words that all of them begin with."""
    name = subject.removeprefix("system:serviceaccount:")
    return name.replace(":", "/", 1) if name != subject else subject or "unknown"


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON as text: escaping it is the template's affair."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
