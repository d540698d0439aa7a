"""Normalising a text: a pure function."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from .config import NormalizeConfig

_CONTROL: Final = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_BLANKS: Final = re.compile(r"[^\S\n]+")
_EMPTY_LINES: Final = re.compile(r"\n{3,}")
_JOINER: Final = "\u200d"
_LONGEST_CLUSTER: Final = 32
"""How far back a cut looks for the beginning of what is seen as one character."""


def normalized(text: str, config: NormalizeConfig) -> str:
    """``text`` as ``config`` asks. Doing it twice changes nothing more."""
    if config.strip_control:
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x85", "\n").translate(_CONTROL)
    text = _in_form(text, config)
    if config.lowercase:
        text = _in_form(
            text.lower(), config
        )  # again: a lower-case letter may have a composed form of its own
    if config.trim_whitespace:
        lines = (_BLANKS.sub(" ", line).strip() for line in text.split("\n"))
        text = _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip()
    if config.max_characters is not None and len(text) > config.max_characters:
        text = _cut(text, config.max_characters)
        if config.trim_whitespace:
            text = text.rstrip()
    return text


def _cut(text: str, length: int) -> str:
    """The first ``length`` characters, fewer where the cut would part a letter from its accents, a joined
    emoji or a flag.
    """
    for end in range(length, max(0, length - _LONGEST_CLUSTER), -1):
        if text[end - 1] != _JOINER and not _continues(text[end]) and not _parts_a_flag(text, end):
            return text[:end]
    return text[:length]


def _continues(character: str) -> bool:
    """Whether it belongs to the character before it: marks, variation selectors, joiners, skin tones."""
    return (
        character == _JOINER
        or unicodedata.category(character).startswith("M")
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def _parts_a_flag(text: str, end: int) -> bool:
    """Whether a flag stands across ``end``: two regional indicators, counted from where their row begins."""
    first = end
    while first and _is_regional(text[first - 1]):
        first -= 1
    return (end - first) % 2 == 1 and _is_regional(text[end])


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _in_form(text: str, config: NormalizeConfig) -> str:
    return text if config.unicode_form == "none" else unicodedata.normalize(config.unicode_form, text)
