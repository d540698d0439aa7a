"""Configuration of normalize_text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from beamline_sdk import Config


class NormalizeConfig(Config):
    """Settings of normalize_text."""

    lowercase: bool = False
    """Turn everything into lower case. Off by default: it can't be undone."""
    trim_whitespace: bool = True
    """Remove blanks at both ends of the text and of each line, make runs of blanks one, runs of empty lines
    one.
    """
    unicode_form: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode normal form; NFKC also unifies look-alikes such as full-width digits."""
    strip_control: bool = True
    """Remove control characters other than tab and line break."""
    max_characters: Annotated[int, Field(ge=1, le=262_144)] | None = None
    """Cut a longer text (the prompt, or the text of one message) after this many characters, never inside of
    one that is written as several. Absent: texts keep their length.
    """
