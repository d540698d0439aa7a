"""Finding personal data in text: card numbers, US social security numbers, e-mail addresses, phone numbers,
IBANs.

A pattern proposes, a check decides: a row of digits is a card only if its issuer's range, its length and its
Luhn digit fit; an IBAN only with its country's form and check digits; a social security number only in the
ranges that are issued. The patterns are RE2's and the checks cost a fixed number of operations per candidate,
so the time is linear in the text, whatever a caller sends. Text is folded first (:mod:`.folding`): full-width
and Arabic digits, unusual blanks and hyphens, and characters without width hide nothing.

Results are spans, never values, so that what is found can't slip into a reason or a log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from . import cards, contacts, identifiers
from .folding import Folded, fold
from .scanning import Span

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


@dataclass(frozen=True, slots=True)
class Detector:
    """What finds one kind, in folded text.

    ``max_length`` is how many characters of the original text one find may take: the value, with the word
    that announces it where it needs one. Hidden characters within count. A value that they stretch beyond
    that is none, so that a whole text and a window of this size never differ.
    """

    kind: Kind
    max_length: int
    spans: Callable[[Folded], Iterator[Span]]


DETECTORS: Final[Mapping[Kind, Detector]] = {
    one.kind: one
    for one in (
        Detector("iban", identifiers.IBAN_MAX_LENGTH, identifiers.ibans),
        Detector("credit_card", cards.MAX_LENGTH, cards.cards),
        Detector("ssn", identifiers.SSN_MAX_LENGTH, identifiers.ssns),
        Detector("email", contacts.EMAIL_MAX_LENGTH, contacts.emails),
        Detector("phone", contacts.PHONE_MAX_LENGTH, contacts.phones),
    )
}


def max_length(kinds: Iterable[Kind]) -> int:
    """The largest :attr:`Detector.max_length` among ``kinds``, characters; 0 for none."""
    return max((DETECTORS[kind].max_length for kind in kinds), default=0)


async def find_beside(text: str, kinds: Iterable[Kind], *, at_most: int | None = None) -> list[Finding]:
    """The same as :func:`find`, in a thread where the text is long: other requests go on meanwhile."""
    if len(text) <= LONG_TEXT:
        return find(text, kinds, at_most=at_most)
    return await asyncio.to_thread(find, text, kinds, at_most=at_most)


def find(text: str, kinds: Iterable[Kind], *, at_most: int | None = None) -> list[Finding]:
    """Everything of ``kinds`` in ``text``, in order of position, without overlaps.

    ``at_most`` is how many of each kind are looked for: enough for whoever asks whether there are any.
    """
    wanted = set(kinds)
    folded = fold(text)
    found: list[Finding] = []
    taken: list[Span] = []
    for kind in KINDS:
        if kind not in wanted:
            continue
        spans = [span for span in islice(_short(kind, folded), at_most) if not _overlaps(span, taken)]
        if spans:
            found += [Finding(kind, *folded.place(*span)) for span in spans]
            taken = sorted(taken + spans)
    return sorted(found, key=lambda one: one.start)


def _short(kind: Kind, folded: Folded) -> Iterator[Span]:
    detector = DETECTORS[kind]
    for span in detector.spans(folded):
        if folded.extent(*span) <= detector.max_length:
            yield span


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
