"""JSON objects that say a key twice.

Every parser takes one of the two, not all the same one: what a guard reads is then not what a provider reads.
So a message that says one of its own fields twice is refused. Looking at every object costs many times what
parsing does; finding the fields' names in the bytes costs next to nothing, and only where one occurs twice,
at whatever depth, is the message looked at in full. A name may hide behind ``\\u`` escapes of plain letters:
no encoder writes those, so they are reason enough to look, too.

All names are found by one pass over the bytes: a message is mostly one long text, and going through it once
for each name was a twentieth of what a request cost.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

REQUEST_FIELDS: Final = re.compile(rb'"(?:tenant_id|environment|model|policy|prompt|messages|parameters)"')
REPLY_FIELDS: Final = re.compile(rb'"(?:output|verdict|error)"')
CHUNK_FIELDS: Final = re.compile(rb'"(?:delta|message|output|error)"')
_ESCAPED: Final = (b"\\u005", b"\\u006", b"\\u007")


def says_twice(data: bytes, fields: re.Pattern[bytes]) -> bool:
    """Whether an object in ``data``, valid JSON of bounded depth, has a key twice; only looked for where one
    of the names in quotes that ``fields`` finds occurs twice.
    """
    found = fields.findall(data)
    if len(found) > 1 and len(set(found)) < len(found):
        return any_key_twice(data)
    if b"\\" in data and any(escape in data for escape in _ESCAPED):
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
