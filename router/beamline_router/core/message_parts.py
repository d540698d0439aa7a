"""What an answer says beside its text, tool calls above all: found, and shown to post steps.

A post step is made for text. What it would change or object to must not slip past it in the arguments of a
tool call, so every text in those parts goes through the same steps: strings, numbers, and what is inside of
strings that are JSON themselves (that is how arguments travel), their keys too. Names that only hold a
structure together (``id``, ``type``, ``index``, ``role``) stay as they are where they look like names.

The steps see all texts at once, one a line, and mostly leave them as they are: one call. Where they change
something, halves are asked until the changed texts are found, so that a mask inside of JSON leaves it JSON. A
part in which nothing changed stays the same, byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import orjson

from beamline_contract.errors import WireError
from beamline_contract.wire import MAX_JSON_DEPTH
from beamline_sdk.deltas import STRUCTURE

from .reading import depth
from .twice import any_key_twice

_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{0,128}")
_NESTED: Final = 4
"""How often JSON inside of a string inside of JSON is opened; what lies deeper is looked at as plain text."""

Apply = Callable[[str], Awaitable[str | WireError]]
"""The post steps, in order, on one text."""


async def guarded(message: Any, apply: Apply) -> Any:
    """``message`` as the post steps let it through, or the :class:`WireError` of one that objects."""
    found: list[str] = []
    _walk(message, _NESTED, lambda text: _kept(found, text))
    if not found:
        return message
    shown = await _shown(found, apply)
    if isinstance(shown, WireError):
        return shown
    replies: Iterator[str] = iter(shown)
    return _walk(message, _NESTED, lambda _: next(replies))


async def _shown(texts: list[str], apply: Apply) -> list[str] | WireError:
    """Each text as the steps leave it."""
    joined = "\n".join(texts)
    after = await apply(joined)
    if isinstance(after, WireError):
        return after
    if after == joined:
        return texts
    if len(texts) == 1:
        return [after]
    middle = len(texts) // 2
    first = await _shown(texts[:middle], apply)
    if isinstance(first, WireError):
        return first
    second = await _shown(texts[middle:], apply)
    return second if isinstance(second, WireError) else first + second


def _kept(found: list[str], text: str) -> str:
    found.append(text)
    return text


def _walk(value: Any, nested: int, visit: Callable[[str], str]) -> Any:
    """``value`` with every text replaced by what ``visit`` makes of it, in a fixed order."""
    if isinstance(value, str):
        return _text(value, nested, visit)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        text = str(value)
        after = visit(text)
        return value if after == text else after
    if isinstance(value, list):
        return [_walk(entry, nested, visit) for entry in value]
    outer = nested == _NESTED
    return {
        (key if outer else visit(key)): (
            entry if outer and key in STRUCTURE and _is_name(entry) else _walk(entry, nested, visit)
        )
        for key, entry in value.items()
    }


def _text(text: str, nested: int, visit: Callable[[str], str]) -> str:
    inner = _json_in(text) if nested > 0 else None
    if inner is None:
        return visit(text)
    after = _walk(inner, nested - 1, visit)
    if after == inner and not any_key_twice(text):
        return text
    return orjson.dumps(after).decode()


def _json_in(text: str) -> Any:
    """The object or list that ``text`` is in JSON; None where it is none that can be walked."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return None if depth(value) > MAX_JSON_DEPTH else value


def _is_name(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and _NAME.fullmatch(value) is not None)
