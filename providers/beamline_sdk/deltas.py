"""The parts of a streamed message put together, as OpenAI's clients do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

STRUCTURE: Final = frozenset({"id", "type", "index", "role"})
"""Names that only hold a message's structure together."""


def merged(whole: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """Two parts of a streamed message as one: texts are joined, entries of lists that name an ``index``
    belong together by it, and what holds the structure is stated anew.
    """
    result = dict(whole)
    for key, value in delta.items():
        known = result.get(key)
        if known is None or key in STRUCTURE:
            result[key] = value
        elif isinstance(known, str) and isinstance(value, str):
            result[key] = known + value
        elif isinstance(known, dict) and isinstance(value, dict):
            result[key] = merged(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            result[key] = _merged_lists(known, value)
        elif value is not None:
            result[key] = value
    return result


def as_whole(message: Mapping[str, Any]) -> dict[str, Any]:
    """``message`` as one that was never in parts: its entries need no ``index`` any more."""
    return {
        name: [_without_index(entry) for entry in value] if isinstance(value, list) else value
        for name, value in message.items()
    }


def _merged_lists(known: list[Any], more: list[Any]) -> list[Any]:
    result = list(known)
    places = {entry.get("index"): at for at, entry in enumerate(result) if _indexed(entry)}
    for entry in more:
        at = places.get(entry["index"]) if _indexed(entry) else None
        if at is None:
            result.append(entry)
            if _indexed(entry):
                places[entry["index"]] = len(result) - 1
        else:
            result[at] = merged(result[at], entry)
    return result


def _without_index(entry: Any) -> Any:
    return {name: value for name, value in entry.items() if name != "index"} if _indexed(entry) else entry


def _indexed(entry: object) -> bool:
    return isinstance(entry, dict) and type(entry.get("index")) is int
