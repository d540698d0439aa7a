"""Normalising a text: a pure function."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from .config import NormalizeConfig

_CONTROL: Final = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_BLANKS: Final = re.compile(r"[^\S\n]+")
_EMPTY_LINES: Final = re.compile(r"\n{3,}")


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
    return text


def _in_form(text: str, config: NormalizeConfig) -> str:
    return text if config.unicode_form == "none" else unicodedata.normalize(config.unicode_form, text)
