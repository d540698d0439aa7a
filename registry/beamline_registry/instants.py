"""Instants as the registry spells them: RFC 3339 text in UTC, ``2026-03-01T12:00:00Z``."""

from __future__ import annotations

from datetime import UTC, datetime


def spell(instant: datetime) -> str:
    """RFC 3339 in UTC, with microseconds only where there are some (Kubernetes writes whole seconds)."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse(text: str | None) -> datetime | None:
    """The instant that ``text`` names; None where it names none. Without an offset it is UTC."""
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
        return (instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
