"""Finding personal data in text: card numbers, US social security numbers, e-mail addresses, phone numbers,
IBANs.

A pattern proposes, a check decides: a row of digits is a card only if its issuer's range, its length and its
Luhn digit fit; an IBAN only with its country's length and check digits; a social security number only in the
ranges that are issued. The patterns are RE2's, so the time is linear in the text, whatever a caller sends.
They see ASCII digits and letters; :mod:`normalize_text` with NFKC in front unifies other forms.

Results are spans, never values, so that what is found can't slip into a reason or a log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import re2
from stdnum import iban as iban_number
from stdnum import luhn
from stdnum.us import ssn as ssn_number

Kind = Literal["credit_card", "ssn", "email", "phone", "iban"]
KINDS: Final[tuple[Kind, ...]] = ("iban", "credit_card", "ssn", "email", "phone")
"""In order of precedence: where two overlap, the earlier kind is reported."""


LONG_TEXT: Final = 16_384
"""Characters from which a search may take longer than an event loop should wait (a few milliseconds)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One find: ``text[start:end]`` is of this kind."""

    kind: Kind
    start: int
    end: int


Span = tuple[int, int]


async def find_beside(text: str, kinds: Iterable[Kind]) -> list[Finding]:
    """The same as :func:`find`, in a thread where the text is long: other requests go on meanwhile."""
    if len(text) <= LONG_TEXT:
        return find(text, kinds)
    return await asyncio.to_thread(find, text, kinds)


def find(text: str, kinds: Iterable[Kind]) -> list[Finding]:
    """Everything of ``kinds`` in ``text``, in order of position, without overlaps."""
    wanted = set(kinds)
    found: list[Finding] = []
    taken: list[Span] = []
    for kind in KINDS:
        if kind not in wanted:
            continue
        spans = [span for span in _DETECTORS[kind](text) if not _overlaps(span, taken)]
        found += [Finding(kind, start, end) for start, end in spans]
        taken = sorted(taken + spans)
    return sorted(found, key=lambda one: one.start)


def _overlaps(span: Span, taken: list[Span]) -> bool:
    """Whether ``span`` shares a character with one of ``taken``, which is sorted and free of overlaps."""
    low, high = 0, len(taken)
    while low < high:
        middle = (low + high) // 2
        if taken[middle][1] <= span[0]:
            low = middle + 1
        else:
            high = middle
    return low < len(taken) and taken[low][0] < span[1]


def _pattern(expression: str) -> Any:
    """Compiles for RE2. No counted repeats of Unicode classes: they make programs that outgrow its memory."""
    options = re2.Options()
    options.log_errors = False  # RE2 writes to standard error by itself
    return re2.compile(expression, options)


# The candidate for cards and unmarked numbers: digits in groups, with one blank or hyphen between two groups.
_DIGIT_GROUPS: Final = _pattern(r"\d+(?:[ -]\d+)*")
_DIGITS: Final = _pattern(r"\d+")
_CARD_DIGITS: Final = range(13, 20)


def _cards(text: str) -> Iterator[Span]:
    for match in _DIGIT_GROUPS.finditer(text):
        start, end = match.span()
        if end - start < _CARD_DIGITS.start:
            continue
        if _joined(text, start - 1) or _joined(text, end):
            continue
        groups = [(start + a, start + b) for a, b in (m.span() for m in _DIGITS.finditer(match.group()))]
        yield from _cards_among(text, groups)


def _cards_among(text: str, groups: list[Span]) -> Iterator[Span]:
    """Cards that are whole groups in a row: "12 4111 1111 1111 1111" holds one, after another number."""
    first = 0
    while first < len(groups):
        hit = _card_from(text, groups, first)
        if hit:
            yield groups[first][0], groups[hit - 1][1]
        first = hit or first + 1


def _card_from(text: str, groups: list[Span], first: int) -> int:
    """The index after the last group of the longest card that begins with group ``first``, or 0."""
    digits, hit = "", 0
    lengths: Container[int] | None = None
    for last in range(first, len(groups)):
        if last > first + 1 and text[groups[last][0] - 1] != text[groups[first][1]]:
            break  # blanks and hyphens in one number: two numbers side by side
        digits += text[groups[last][0] : groups[last][1]]
        if len(digits) >= _CARD_DIGITS.stop:
            break
        if lengths is None and len(digits) >= 4:
            lengths = _issued_lengths(digits)
            if not lengths:
                break
        if lengths and len(digits) in lengths and len(set(digits)) > 1 and luhn.is_valid(digits):
            hit = last + 1
    return hit


def _issued_lengths(digits: str) -> Sequence[int]:
    """How many digits a card that begins so has; empty where no issuer's numbers do."""
    two, four = int(digits[:2]), int(digits[:4])
    if digits[0] == "4":  # Visa
        return (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:  # Mastercard
        return (16,)
    if two in {34, 37}:  # American Express
        return (15,)
    if four == 6011 or two in {62, 64, 65, 81} or 3528 <= four <= 3589:  # Discover, UnionPay, RuPay, JCB
        return range(16, 20)
    if two in {30, 36, 38, 39}:  # Diners Club
        return range(14, 20)
    if two in {50, 56, 57, 58, 63, 67}:  # Maestro
        return range(13, 20)
    return ()


_SSN: Final = _pattern(r"\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}")
_SSN_MARKED: Final = _pattern(r"(?i)\b(?:ssn|social security(?: number| no\.?)?)[ :#=is]{1,6}(\d{9})\b")


def _ssns(text: str) -> Iterator[Span]:
    spans = [match.span() for match in _SSN.finditer(text)]
    spans += [match.span(1) for match in _SSN_MARKED.finditer(text)]
    for start, end in sorted(spans):
        if _joined(text, start - 1, "-.") or _joined(text, end, "-"):
            continue
        if ssn_number.is_valid(text[start:end].replace(" ", "-")):
            yield start, end


_EMAIL: Final = _pattern(r"[\pL\pN_.%+'\-]+@[\pL\pN](?:[\pL\pN.\-]*[\pL\pN])?\.[\pL]+")


_DOMAIN: Final = 255
"""Characters of a domain (RFC 5321, section 4.5.3.1.2); with a name of 64 and the @, an address has 320."""
MAX_LENGTH: Final = 320
"""The longest find, with what a detector must see beside it: an e-mail address."""


def _emails(text: str) -> Iterator[Span]:
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        start, end = match.span()
        found = text[start:end]
        start += len(found) - len(found.lstrip(".%+'-"))
        name, _, domain = text[start:end].rpartition("@")
        labels = domain.split(".")
        if (
            1 <= len(name) <= 64
            and 2 <= len(labels[-1]) <= 24
            and all(0 < len(label) <= 63 for label in labels)
            and len(domain) <= _DOMAIN
        ):
            yield start, end


_PHONES: Final = (
    _pattern(r"\+\d{1,3}(?:[ .\-/]?(?:\(\d{1,4}\)|\d{1,12})){1,6}"),  # international
    _pattern(r"(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}"),  # North America
    _pattern(r"\(?0[1-9]\d{1,3}\)?[ /-]\d{3,4}[ -]?\d{3,6}"),  # national, with trunk prefix
)
_PHONE_MARKED: Final = _pattern(
    r"(?i)\b(?:phone|tel|mobile|cell|call)[ .:#]{1,4}(?:me |us )?(?:at |on )?(\d{9,12})\b"
)
_PHONE_DIGITS: Final = range(9, 16)


def _phones(text: str) -> Iterator[Span]:
    spans = [match.span() for pattern in _PHONES for match in pattern.finditer(text)]
    spans += [match.span(1) for match in _PHONE_MARKED.finditer(text)]
    last = 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        digits = sum(character.isdigit() for character in text[start:end])
        if start < last or digits not in _PHONE_DIGITS:
            continue
        if _joined(text, start - 1, ".-+/") or _joined(text, end):
            continue
        last = end
        yield start, end


_IBAN: Final = _pattern(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{1,4}){3,9}")
_IBAN_TABLE: Final = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
    "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 "
    "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 "
    "NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
    "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
_IBAN_LENGTHS: Final = {entry[:2]: int(entry[2:]) for entry in _IBAN_TABLE.split()}
"""Characters of an IBAN by country: the registry of ISO 13616."""


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        start, end = match.span()
        # The pattern may have taken words behind the number: the country says where it ends.
        left, stop = _IBAN_LENGTHS.get(text[start : start + 2].upper(), 0), start
        while left > 0 and stop < end:
            left -= text[stop] != " "
            stop += 1
        if left or stop == start or _joined(text, stop):
            continue
        if iban_number.is_valid(text[start:stop], check_country=False):
            yield start, stop


def _joined(text: str, position: int, marks: str = "") -> bool:
    """Whether the character at ``position`` continues a number or word: then what ends there is only a part
    of it.
    """
    if not 0 <= position < len(text):
        return False
    character = text[position]
    if character in marks:
        beyond = position + (1 if position and text[position - 1].isalnum() else -1)
        return 0 <= beyond < len(text) and text[beyond].isdigit()
    return character.isalnum() or character == "_"


_DETECTORS: Final[dict[Kind, Callable[[str], Iterator[Span]]]] = {
    "iban": _ibans,
    "credit_card": _cards,
    "ssn": _ssns,
    "email": _emails,
    "phone": _phones,
}
