"""When a line of a log was written, and spans of time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_JSON_STAMP: Final = re.compile(rb'"timestamp":\s*"([^"]{19,35})"')
_PLAIN_STAMP: Final = re.compile(
    rb"(\d{4})[-/](\d\d)[-/](\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?: (UTC|GMT))?"
)


def span(text: str) -> timedelta:
    """``90s``, ``10m``, ``1h30m``, ``2d``. Raises :class:`ValueError`."""
    found = _SPAN.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise ValueError(f"{text!r} is no span of time: it looks like 90s, 10m, 1h30m or 2d")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in found))


def written_at(line: bytes) -> datetime | None:
    """When a line was written: our own JSON, or the first date in a line of NATS (this machine's time) or
    PostgreSQL (UTC, which it says). None where it does not tell.
    """
    stamp = _JSON_STAMP.search(line, 0, 512)
    if stamp is not None:
        try:
            return datetime.fromisoformat(stamp[1].decode()).astimezone(UTC)
        except ValueError:
            return None
    plain = _PLAIN_STAMP.search(line, 0, 64)
    if plain is None:
        return None
    try:
        at = datetime(*(int(part) for part in plain.groups()[:6]))  # type: ignore[arg-type]  # noqa: DTZ001 -- next
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if plain[7] else at.astimezone(UTC)
