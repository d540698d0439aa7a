"""One way to write a JSON value down, so that equal values have equal bytes wherever they have been.

PostgreSQL's ``jsonb`` keeps values, not spellings: key order goes, and numbers become decimals (``1e2`` comes
back as ``100``, ``-0.0`` as ``0.0``). Comparing contents and hashing audit rows therefore works on
:func:`canonical`, which sorts keys and spells whole numbers as integers. It also tells ``true`` from ``1``,
which Python's ``==`` does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

_EXACT: Final = 2.0**63  # beyond this a whole float is no 64-bit integer, and stays a float on both sides


class NotStorableError(ValueError):
    """The value has no faithful form in ``jsonb``."""


def canonical(value: object) -> bytes:
    """The canonical JSON of ``value``. Raises :class:`NotStorableError`."""
    try:
        return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)
    except (TypeError, RecursionError) as error:  # half a surrogate pair, an integer beyond 64 bits, too deep
        raise NotStorableError(f"is not JSON that a database can hold: {error}") from error


def stored_form(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a JSON object as the registry gives it back. Raises :class:`NotStorableError`."""
    return dict(orjson.loads(canonical(value)))


def encode(value: object) -> str:
    """``value`` as JSON text for a parameter of type jsonb."""
    return orjson.dumps(value).decode()


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if "\0" in value:
            raise NotStorableError("holds the character U+0000, which a database can't store")
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotStorableError(f"holds {value}, which is no JSON number")
        return int(value) if value.is_integer() and -_EXACT <= value < _EXACT else value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise NotStorableError("has a key that is not a string")
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise NotStorableError(f"holds a {type(value).__name__}, which is not JSON")
