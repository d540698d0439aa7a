"""The files that a browser may have without a login: style sheets, modules, the icon. Read once, at start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

_KINDS: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PREFIX: Final = "/static/"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file as it is sent. ``tag`` is its entity tag: a browser asks again, and usually gets a 304."""

    content: bytes
    media_type: str
    tag: str


def _read() -> Mapping[str, StaticFile]:
    found: dict[str, StaticFile] = {}
    for entry in files(__package__).joinpath("static").iterdir():
        kind = _KINDS.get(f".{entry.name.rpartition('.')[2]}")
        if kind is not None:
            content = entry.read_bytes()
            found[PREFIX + entry.name] = StaticFile(
                content, kind, f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            )
    return found


STATIC: Final = _read()
"""By path. Nothing else under :data:`PREFIX` exists."""
