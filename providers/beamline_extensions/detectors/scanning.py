"""What the detectors share: compiled patterns, and whether a find is only a part of something longer."""

from __future__ import annotations

from typing import Any, Final

import re2

Span = tuple[int, int]
NO_MARKS: Final = {ord(mark): None for mark in " -./()+"}
"""For ``str.translate``: leaves the digits of a number."""

MAX_MEMORY: Final = 64 << 20
"""Bytes that RE2 may use for one pattern's automaton. Its default of 8 MiB makes it fall back on a slower
search, and say so on standard error; none of the patterns here comes near this bound."""


def pattern(expression: str) -> Any:
    """Compiles for RE2: the time of a search is linear in the text, whatever a caller sends."""
    options = re2.Options()
    options.log_errors = False  # RE2 writes to standard error by itself
    options.max_mem = MAX_MEMORY
    return re2.compile(expression, options)


def in_a_word(text: str, position: int) -> bool:
    """Whether the character at ``position`` would continue a number or word beside it.

    Scripts that are written without blanks between words (Thai, Chinese, Japanese, Korean with its particles)
    continue nothing: a number stands in the middle of their text.
    """
    if not 0 <= position < len(text):
        return False
    character = text[position]
    if character < "\u0e00" or "\u1e00" <= character < "\u2000":
        return character.isalnum() or character == "_"
    return False


def digit_beyond(text: str, mark: int, step: int, marks: str) -> bool:
    """Whether at ``mark`` stands one of ``marks`` with a digit behind it, seen in direction ``step``."""
    beyond = mark + step
    return (
        0 <= mark < len(text) and text[mark] in marks and 0 <= beyond < len(text) and text[beyond].isdigit()
    )
