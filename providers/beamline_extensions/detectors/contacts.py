"""Ways to reach a person: e-mail addresses and phone numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .calling_codes import fits_a_country
from .folding import Folded
from .scanning import NO_MARKS, Span, digit_beyond, in_a_word, pattern

EMAIL_MAX_LENGTH: Final = 320
"""RFC 5321: 64 before the sign, the sign, 255 behind it."""
PHONE_MAX_LENGTH: Final = 128
"""15 digits (ITU-T E.164) with marks between them, the word that announces them, room for hidden
characters."""

# Letters of scripts that put blanks between words. An address in the middle of a Chinese sentence ends where
# these end; an address of Chinese characters is looked for where the first pattern finds nothing.
_LETTERS: Final = r"A-Za-z\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{DFF}\x{1E00}-\x{1FFF}"


def _address(letters: str) -> str:
    return (
        rf"[{letters}0-9_.%+'\-]+@[{letters}0-9](?:[{letters}0-9.\-]*[{letters}0-9])?"
        rf"\.(?:xn--[A-Za-z0-9\-]+|[{letters}]{{2,}})"
    )


_EMAIL: Final = pattern(_address(_LETTERS))
_EMAIL_OF_ANY_SCRIPT: Final = pattern(_address(r"\pL\pN"))
_FILES: Final = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "json", "html"})
"""``icon@2x.png`` is a picture. None of these is a top-level domain."""


def emails(folded: Folded) -> Iterator[Span]:
    """E-mail addresses, international ones included; no user of a URL, no path of a repository over ssh."""
    text = folded.text
    if "@" not in text:
        return
    after = 0
    for match in _EMAIL.finditer(text):
        span = _address_in(text, *match.span())
        if span:
            after = span[1]
            yield span
    if text.isascii() or after:
        return
    for match in _EMAIL_OF_ANY_SCRIPT.finditer(text):
        span = _address_in(text, *match.span())
        if span:
            yield span


def _address_in(text: str, start: int, end: int) -> Span | None:
    found = text[start:end]
    start += len(found) - len(found.lstrip(".%+'-"))
    name, _, domain = text[start:end].rpartition("@")
    if not 1 <= len(name) <= 64 or len(domain) > 255 or ".." in domain:
        return None
    labels = domain.split(".")
    last = labels[-1]
    if (
        not 2 <= len(last) <= 24
        or last.lower() in _FILES
        or not all(0 < len(label) <= 63 for label in labels)
    ):
        return None
    if start and text[start - 1] == "@":  # a handle of a federated network, or two signs
        return None
    if name == "git" and text[end : end + 1] == ":":
        return None
    return None if _is_userinfo(text, start, end) else (start, end)


def _is_userinfo(text: str, start: int, end: int) -> bool:
    """Whether what begins at ``start`` stands between ``://`` and the host of a URL, which ends at ``end``.
    All of it within the length of an address: no more may decide about one.
    """
    if start == 0 or text[start - 1] not in "/:":
        return False
    low = max(0, end - EMAIL_MAX_LENGTH)
    scheme = text.rfind("://", low, start)
    return scheme >= 0 and not any(mark in text[scheme + 3 : start] for mark in "/? \n\t")


_DIGITS_WITH_MARKS: Final = r"(?:[ .\-/]{0,2}(?:\(\d{1,5}\)|\d))"
_INTERNATIONAL: Final = pattern(rf"(?:\+|\b00)[1-9]{_DIGITS_WITH_MARKS}{{6,15}}")
_NATIONAL: Final = (
    pattern(r"(?:1[ .-])?(?:\([2-9]\d{2}\)[ -]?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}"),  # North America
    pattern(
        r"\(0[1-9]\d{1,3}\)[ /-]?\d{3,4}[ -]?\d{3,6}|0[1-9]\d{1,3}[ /-]\d{3,4}[ -]?\d{3,6}"
    ),  # trunk prefix
    pattern(r"0[1-9](?: \d{2}){4}|0[1-9](?:\.\d{2}){4}|0[1-9](?:-\d{2}){4}"),  # in pairs
)
_MARKED: Final = pattern(
    r"(?i)\b(?:phone|telephone|tel|mobile|cell|call|fax|whatsapp|text|sms|telefon|handy|mobil|t\x{E9}l\x{E9}phone|"
    r"t\x{E9}l|portable|tel\x{E9}fono|m\x{F3}vil|celular|telefone|telefono|cellulare|"
    r"\x{442}\x{435}\x{43B}\x{435}\x{444}\x{43E}\x{43D}|\x{442}\x{435}\x{43B})"
    r"(?: number| no| n\x{BA}| nr)?[ .:#]{1,4}(?:me |us |is |at |on ){0,2}"
    r"(\(?\d{2,5}\)?(?:[ .\-/]?\d){5,12})"
)
_PHONE_DIGITS: Final = range(9, 16)
_LOCAL: Final = range(7, 16)


def phones(folded: Folded) -> Iterator[Span]:
    """Phone numbers: with a country's calling code, in a national form, or announced by a word."""
    text = folded.text
    spans = [(start, -end, "international") for start, end in _spans(_INTERNATIONAL, text)]
    for national in _NATIONAL:
        spans += [(start, -end, "national") for start, end in _spans(national, text)]
    spans += [
        (match.start(1), -match.end(1), "marked")
        for match in _MARKED.finditer(text)
        if folded.extent(*match.span()) <= PHONE_MAX_LENGTH
    ]
    last = 0
    for start, negative, form in sorted(spans):
        end = -negative
        if start < last or in_a_word(text, end) or in_a_word(text, start - 1):
            continue
        if digit_beyond(text, start - 1, -1, ".-+/:") or digit_beyond(text, end, 1, ":"):
            continue
        found = text[start:end]
        digits = found.translate(NO_MARKS)
        if form == "international":
            if not _is_international(text, start, last, found, digits):
                continue
        elif (
            form == "national" and (_in_a_row(text, start, last) or digit_beyond(text, end, 1, "-./"))
        ) or len(digits) not in (_LOCAL if form == "marked" and len(found) > len(digits) else _PHONE_DIGITS):
            continue
        last = end
        yield start, end


def _is_international(text: str, start: int, last: int, found: str, digits: str) -> bool:
    if found[0] == "+":
        return fits_a_country(digits)
    # Digits without a mark that begin with 00 are an article's number.
    return fits_a_country(digits[2:]) and len(found) > len(digits) and not _in_a_row(text, start, last)


def _in_a_row(text: str, start: int, last: int) -> bool:
    """Whether digits stand a blank before ``start``, other than the phone number that ends at ``last``."""
    return start - 1 != last and digit_beyond(text, start - 1, -1, " ")


def _spans(one: object, text: str) -> Iterator[Span]:
    for match in one.finditer(text):  # type: ignore[attr-defined]  # re2 has no types
        yield match.span()
