"""Text as a detector reads it: whatever looks like an ASCII digit, letter, blank or hyphen is one.

A number can be written with full-width or Arabic digits, with no-break or thin blanks, with any of Unicode's
dashes, and with characters between its digits that nobody sees. Folding replaces each character by at most
one
other, so positions stay comparable; what is invisible is left out, and :meth:`Folded.place` leads back to the
original. A text of ASCII alone, which most are, is not copied.

A run of more than LONGEST_RUN hidden characters is no spelling of anything: it stands as one character that
belongs to no value, so that it neither joins what stands on its two sides nor hides it.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

_HIDDEN: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u20e3\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)
"""Runs of what has no width: joiners, direction marks, fillers, variation selectors, tags, the key-cap
frame."""
LONGEST_RUN: Final = 16
"""Hidden characters in a row that are left out: a region's flag, the longest sequence in use, has seven."""
_SEPARATOR: Final = "\0"


class _Alphabet(dict[int, int]):
    """What a code point is read as. Filled as characters turn up: there are a million, and texts use few."""

    def __missing__(self, code: int) -> int:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Pd" or character == "\u2212":
            read = ord("-")
        elif category == "Nd":
            read = ord("0") + unicodedata.decimal(character)
        else:
            plain = unicodedata.normalize("NFKC", character)
            read = ord(plain) if len(plain) == 1 and plain.isascii() else code
        self[code] = read
        return read


_ALPHABET: Final = _Alphabet()


@dataclass(frozen=True, slots=True)
class Folded:
    """``text`` is the folded form. Of the n-th run of hidden characters, ``starts[n]`` is where in ``text``
    it stood and ``hidden[n]`` how many characters it and all before it had.
    """

    text: str
    starts: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where ``text[start:end]`` (not empty) stands in the original, hidden characters within included."""
        if not self.starts:
            return start, end
        return self._original(start), self._original(end - 1) + 1

    def extent(self, start: int, end: int) -> int:
        """Characters of the original from ``start`` to ``end`` of ``text``, hidden ones within included."""
        first, last = self.place(start, end)
        return last - first

    def _original(self, position: int) -> int:
        before = bisect_right(self.starts, position)
        return position + (self.hidden[before - 1] if before else 0)


def fold(text: str) -> Folded:
    """The folded form of ``text``; takes time in proportion to its length."""
    if text.isascii():
        return Folded(text)
    if _HIDDEN.search(text) is None:
        return Folded(text.translate(_ALPHABET))
    kept: list[str] = []
    starts: list[int] = []
    hidden: list[int] = []
    position = gone = 0
    for run in _HIDDEN.finditer(text):
        kept.append(text[position : run.start()])
        place, left_out = run.start() - gone, run.end() - run.start()
        if left_out > LONGEST_RUN:
            kept.append(_SEPARATOR)
            place, left_out = place + 1, left_out - 1
        starts.append(place)
        position = run.end()
        gone += left_out
        hidden.append(gone)
    kept.append(text[position:])
    return Folded("".join(kept).translate(_ALPHABET), tuple(starts), tuple(hidden))
