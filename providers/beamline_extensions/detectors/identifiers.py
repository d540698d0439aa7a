"""Numbers that a state or a bank gives to a person: US social security numbers and IBANs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .folding import Folded
from .scanning import NO_MARKS, Span, digit_beyond, in_a_word, pattern

SSN_MAX_LENGTH: Final = 64
"""11 characters; 32 more for the words that mark nine bare digits, and room for hidden characters."""
IBAN_MAX_LENGTH: Final = 200
"""33 letters and digits with a mark between any two are 65; the rest is room for hidden characters."""

_SSN: Final = pattern(r"\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}")
_SSN_MARKED: Final = pattern(
    r"(?i)\b(?:ssn|social security(?: number| no\.?)?)[ :#=is]{1,6}(\d{3}[-. ]?\d{2}[-. ]?\d{4})"
)
_NEVER_ISSUED: Final = frozenset({"078051120", "219099999", "457555462"})
"""Printed in advertisements and invalidated since."""


def ssns(folded: Folded) -> Iterator[Span]:
    """Social security numbers: with marks between their parts, or nine digits that a word announces."""
    text = folded.text
    spans = {match.span() for match in _SSN.finditer(text)}
    spans.update(
        match.span(1)
        for match in _SSN_MARKED.finditer(text)
        if folded.extent(*match.span()) <= SSN_MAX_LENGTH
    )
    for start, end in sorted(spans):
        if in_a_word(text, start - 1) or in_a_word(text, end):
            continue
        if digit_beyond(text, start - 1, -1, "-.") or digit_beyond(text, end, 1, "-"):
            continue
        if _issued(text[start:end]):
            yield start, end


def _issued(found: str) -> bool:
    """Source: Social Security Administration, "Social Security Number Randomization" (2011)."""
    digits = found.translate(NO_MARKS)
    return (
        digits[:3] not in {"000", "666"}
        and digits[0] != "9"
        and digits[3:5] != "00"
        and digits[5:] != "0000"
        and digits not in _NEVER_ISSUED
    )


_STRUCTURES: Final = (
    "AD8n12c AE19n AL8n16c AT16n AZ4a20c BA16n BE12n BG4a6n8c BH4a14c BI23n BR23n1a1c BY4c4n16c CH5n12c "
    "CR18n "
    "CY8n16c CZ20n DE18n DJ23n DK14n DO4c20n EE16n EG25n ES20n FI14n FK2a12n FO14n FR10n11c2n GB4a14n "
    "GE2a16n "
    "GI4a15c GL14n GR7n16c GT4c20c HN4a20n HR17n HU24n IE4a14n IL19n IQ4a15n IS22n IT1a10n12c JO4a4n18c "
    "KW4a22c KZ3n13c LB4n20c LC4a24c LI5n12c LT16n LU3n13c LV4a13c LY21n MC10n11c2n MD2c18c ME18n MK3n10c2n "
    "MN16n MR23n MT4a5n18c MU4a19n3a NI4a20n NL4a10n NO11n OM3n16c PK4a16c PL24n PS4a21c PT21n QA4a21c "
    "RO4a16c RS18n RU14n15c SA2n18c SC4a20n3a SD14n SE20n SI15n SK20n SM1a10n12c SO19n ST21n SV4a20n TL19n "
    "TN20n TR6n16c UA6n19c VA18n VG4a16n XK16n YE4a4n18c"
)
"""What follows the check digits, by country (n digits, a letters, c either): the registry of ISO 13616."""
_OF_KIND: Final = {"n": "[0-9]", "a": "[A-Za-z]", "c": "[A-Za-z0-9]"}
_PART: Final = re.compile(r"(\d+)([nac])")


def _structures() -> str:
    """One expression for every country's form, with a blank or hyphen wherever somebody may have put one."""
    forms: dict[str, list[str]] = {}
    for entry in _STRUCTURES.split():
        form = "".join(f"(?:[ -]?{_OF_KIND[kind]}){{{times}}}" for times, kind in _PART.findall(entry[2:]))
        forms.setdefault(form, []).append(entry[:2])
    return "|".join(f"(?:{'|'.join(countries)})[ -]?\\d[ -]?\\d{form}" for form, countries in forms.items())


_IBAN: Final = pattern(rf"(?i)\b(?:{_structures()})")
_VALUES: Final = {ord("A") + n: str(10 + n) for n in range(26)} | {ord(" "): None, ord("-"): None}


def ibans(folded: Folded) -> Iterator[Span]:
    """IBANs of a country's form whose check digits fit (ISO 7064, 97-10)."""
    text = folded.text
    for match in _IBAN.finditer(text):
        start, end = match.span()
        if in_a_word(text, start - 1) or in_a_word(text, end):
            continue
        digits = match.group().upper().replace(" ", "").replace("-", "")
        if "02" <= digits[2:4] <= "98" and int((digits[4:] + digits[:4]).translate(_VALUES)) % 97 == 1:
            yield start, end
