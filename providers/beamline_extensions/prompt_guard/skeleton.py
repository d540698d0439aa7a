"""A text as somebody reads it, whatever it is written with.

Two texts that look the same to a reader have the same skeleton: compatibility forms are unified (NFKD),
accents
and invisible characters left out, letters of other alphabets that look like Latin ones replaced by those,
case
folded, and every run of blanks is one. Source of the pairs: the most frequent ones of Unicode's confusables
(UTS 39).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_LOOKALIKES: Final = dict(
    zip(
        map(ord, "аɑαвсϲԁеҽεɡһіıιјκкӏⅼмոноοрρԛѕтυսνѵѡԝхχуγʏᴢցօ"),
        "aaabccdeeeghiiijkkllmnhooppqstuuvvwwxxyyyzgo",
        strict=True,
    )
)
_LOOKALIKES.update(zip(map(ord, "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ"), "abcdefghijklmnoprstuvwyz", strict=True))
for _first in (0x1F150, 0x1F170):  # white letters in black discs and squares, which NFKD keeps
    _LOOKALIKES.update(zip(range(_first, _first + 26), "abcdefghijklmnopqrstuvwxyz", strict=True))
_BLANKS: Final = re.compile(r"\s+")
_SEPARATORS: Final = re.compile(r"[\W_]+")


class _Letters(dict[int, int | None]):
    """What a code point of a decomposed, folded text is read as; filled as characters turn up."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        category = unicodedata.category(character)
        read: int | None = code
        if (
            category in {"Mn", "Me", "Cf"}
            or (category == "Cc" and not character.isspace())
            or character in "\u115f\u1160\u3164\uffa0"
        ):
            read = None
        elif code in _LOOKALIKES:
            read = ord(_LOOKALIKES[code])
        self[code] = read
        return read


_LETTERS: Final = _Letters()


def skeleton(text: str) -> str:
    """The text as it is read; the same for texts that look alike. Takes time in proportion to its length."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
    return _BLANKS.sub(" ", text.casefold().translate(_LETTERS)).strip()


def joined(skeleton_of_text: str) -> str:
    """A skeleton without anything between its letters and digits."""
    return _SEPARATORS.sub("", skeleton_of_text)
