"""Payment card numbers: an issuer's range, a length that it uses, and the Luhn digit.

Digits stand in one piece or in groups with the same single blank or hyphen between all of them (four groups
may have dots). A number may begin with any group of a row: "12 4111 1111 1111 1111" holds one, after another
number. So every group of a row is a possible beginning, and a hostile text is all beginnings; prefix sums
make each of them cost the same few operations, however long the row is.

Source of the ranges: the networks' published issuer identification numbers (ISO/IEC 7812).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from .folding import Folded
from .scanning import Span, digit_beyond, in_a_word, pattern

SHORTEST: Final = 13
MAX_LENGTH: Final = 160
"""19 digits and 18 marks between them are 37; the rest is room for hidden characters."""

_ROW: Final = pattern(r"\d[\d -]{11,}\d")
_DOTTED: Final = pattern(r"\d{4}\.\d{4}\.\d{4}\.\d{4}|\d{4}\.\d{6}\.\d{5}")

_RANGES: Final = (
    (4000, 4999, (13, 16, 19)),  # Visa
    (5100, 5599, (16,)),  # Mastercard
    (2221, 2720, (16,)),
    (3400, 3499, (15,)),  # American Express
    (3700, 3799, (15,)),
    (6011, 6011, (16, 17, 18, 19)),  # Discover
    (6440, 6599, (16, 17, 18, 19)),
    (6200, 6299, (16, 17, 18, 19)),  # UnionPay
    (8100, 8171, (16, 17, 18, 19)),
    (3528, 3589, (16, 17, 18, 19)),  # JCB
    (3000, 3059, (14, 16, 17, 18, 19)),  # Diners Club
    (3095, 3095, (14, 16, 17, 18, 19)),
    (3600, 3699, (14, 15, 16, 17, 18, 19)),
    (3800, 3999, (14, 16, 17, 18, 19)),
    (2200, 2204, (16, 17, 18, 19)),  # Mir
    (5018, 5018, (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (5020, 5020, (13, 14, 15, 16, 17, 18, 19)),
    (5038, 5038, (13, 14, 15, 16, 17, 18, 19)),
    (5893, 5893, (13, 14, 15, 16, 17, 18, 19)),
    (6304, 6304, (13, 14, 15, 16, 17, 18, 19)),
    (6759, 6759, (13, 14, 15, 16, 17, 18, 19)),
    (6761, 6763, (13, 14, 15, 16, 17, 18, 19)),
    (5019, 5019, (16,)),  # Dankort
    (5060, 5061, (16, 18, 19)),  # Verve
    (6521, 6522, (16,)),  # RuPay
    (8172, 8199, (16,)),
    (9792, 9792, (16,)),  # Troy
)
_LENGTHS: Final[dict[str, tuple[int, ...]]] = {
    f"{first:04}": tuple(sorted(lengths, reverse=True))
    for low, high, lengths in _RANGES
    for first in range(low, high + 1)
}
"""Lengths that are issued, the longest first, by the first four digits."""
_AS_IS: Final = bytes(value - 48 if 48 <= value < 58 else 0 for value in range(256))
_DOUBLED: Final = bytes(
    (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[value - 48] if 48 <= value < 58 else 0 for value in range(256)
)


def cards(folded: Folded) -> Iterator[Span]:
    """Spans of card numbers in folded text, in order of neither position nor length; they do not overlap."""
    text = folded.text
    for match in _ROW.finditer(text):
        start, end = match.span()
        row = match.group()
        blanks, hyphens = " " in row, "-" in row
        if not (blanks or hyphens):
            if end - start <= 19 and not _inside(text, start, end):
                yield from _in_row(row, start, (0,))
            continue
        if blanks and hyphens:
            taken: list[Span] = []
            for between, mark in ((" ", "-"), ("-", " ")):
                for at, piece in _pieces(row, between):
                    for span in _in_groups(text, piece, start + at, mark):
                        if all(span[1] <= a or b <= span[0] for a, b in taken[-4:]):
                            taken.append(span)
                            yield span
            continue
        yield from _in_groups(text, row, start, " " if blanks else "-")
    if "." in text:
        for match in _DOTTED.finditer(text):
            start, end = match.span()
            if not (_inside(text, start, end) or digit_beyond(text, end, 1, ".")):
                yield from ((start, end) for _ in _in_row(match.group().replace(".", ""), start, (0,)))


def _pieces(row: str, between: str) -> Iterator[tuple[int, str]]:
    position = 0
    for piece in row.split(between):
        if len(piece) >= SHORTEST:
            yield position, piece
        position += len(piece) + 1


def _in_groups(text: str, row: str, offset: int, mark: str) -> Iterator[Span]:
    """Cards in a row of digits with single marks between its groups; two marks in a row end it."""
    at = 0
    for piece in row.split(mark + mark):
        whole = piece.strip(mark)
        if len(whole) >= SHORTEST:
            start = offset + at + piece.index(whole)
            yield from _in_piece(text, whole, start, mark)
        at += len(piece) + 2


def _in_piece(text: str, row: str, offset: int, mark: str) -> Iterator[Span]:
    groups = row.split(mark)
    firsts = [0, *accumulate(map(len, groups))]  # the digit at which each group begins
    # In a word at its ends: those groups belong to the word.
    if in_a_word(text, offset - 1):
        firsts.pop(0)
    if in_a_word(text, offset + len(row)):
        firsts.pop()
    if len(firsts) < 2 or firsts[-1] - firsts[0] < SHORTEST:
        return
    number = {digit: index for index, digit in enumerate([0, *accumulate(map(len, groups))])}
    for start, end in _in_row(row.replace(mark, ""), 0, firsts):
        yield offset + start + number[start], offset + end + number[end] - 1


def _in_row(digits: str, offset: int, firsts: tuple[int, ...] | list[int]) -> Iterator[Span]:
    """Cards among ``digits`` that begin at one of ``firsts`` and end at another, or at the end of all."""
    starts = [first for first in firsts if digits[first : first + 4] in _LENGTHS]
    if not starts:
        return
    raw = digits.encode()
    # Luhn doubles every second digit from the right: which ones depends on where the number ends.
    plain, doubled = raw.translate(_AS_IS), raw.translate(_DOUBLED)
    even, odd = bytearray(doubled), bytearray(plain)
    even[1::2], odd[1::2] = plain[1::2], doubled[1::2]
    sums = (list(accumulate(even, initial=0)), list(accumulate(odd, initial=0)))
    ends = set(firsts) if len(firsts) > 1 else {len(digits)}
    after = 0
    for start in starts:
        if start < after:
            continue
        for length in _LENGTHS[digits[start : start + 4]]:
            end = start + length
            if end in ends:
                upto = sums[end % 2]
                if (upto[end] - upto[start]) % 10 == 0 and digits.count(digits[start], start, end) < length:
                    yield offset + start, offset + end
                    after = end
                    break


def _inside(text: str, start: int, end: int) -> bool:
    """Whether the digits are a part of a word, or the digits behind a decimal point."""
    if in_a_word(text, start - 1) or in_a_word(text, end):
        return True
    return digit_beyond(text, start - 1, -1, ".,")
