"""JSON objects that say a key twice.

Every parser takes one of the two, not all the same one: what a guard reads is then not what a provider reads.
So a message that says one of its own fields twice is refused. Looking at every object costs many times what
parsing does; counting the field's name in the bytes costs next to nothing, and only where it occurs twice, at
whatever depth, is the message looked at in full. A name may hide behind ``\\u`` escapes of plain letters: no
encoder writes those, so they are reason enough to look, too.
"""

from __future__ import annotations

import json
from typing import Any, Final

REQUEST_FIELDS: Final = tuple(
    b'"%b"' % name
    for name in (b"tenant_id", b"environment", b"model", b"policy", b"prompt", b"messages", b"parameters")
)
REPLY_FIELDS: Final = (b'"output"', b'"verdict"', b'"error"')
_ESCAPED: Final = (b"\\u005", b"\\u006", b"\\u007")


def says_twice(data: bytes, fields: tuple[bytes, ...]) -> bool:
    """Whether an object in ``data``, valid JSON of bounded depth, has a key twice; only looked for where one
    of ``fields``, names in quotes, occurs twice.
    """
    for field in fields:
        if data.count(field) > 1:
            return any_key_twice(data)
    if b"\\u00" in data and any(escape in data for escape in _ESCAPED):
        return any_key_twice(data)
    return False


def any_key_twice(text: str | bytes) -> bool:
    """Whether any object in JSON ``text`` has a key twice."""
    twice = False

    def pairs(listed: list[tuple[str, Any]]) -> None:
        nonlocal twice
        twice = twice or len({key for key, _ in listed}) < len(listed)

    json.loads(text, object_pairs_hook=pairs)
    return twice
