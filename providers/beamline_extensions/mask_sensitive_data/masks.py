"""How a find is masked: pure functions."""

from __future__ import annotations

from typing import Final, Literal

from beamline_extensions.detectors import Finding, Kind

Style = Literal["token", "partial"]

TOKENS: Final[dict[Kind, str]] = {
    "credit_card": "[CREDIT_CARD]",
    "ssn": "[SSN]",
    "email": "[EMAIL]",
    "phone": "[PHONE]",
    "iban": "[IBAN]",
}


def masked(text: str, findings: list[Finding], style: Style) -> str:
    """``text`` with every finding replaced. ``findings`` are in order and do not overlap."""
    parts, position = [], 0
    for finding in findings:
        parts.append(text[position : finding.start])
        value = text[finding.start : finding.end]
        parts.append(TOKENS[finding.kind] if style == "token" else partial(finding.kind, value))
        position = finding.end
    parts.append(text[position:])
    return "".join(parts)


def partial(kind: Kind, value: str) -> str:
    """A form to recognise by. ``j***@***.com``; for numbers, stars for all but the last four digits or
    letters.

    An IBAN keeps its country as well.
    """
    if kind == "email":
        name, _, domain = value.rpartition("@")
        return f"{name[0]}***@***.{domain.rpartition('.')[2]}"
    hidden = sum(character.isalnum() for character in value) - 4
    result = []
    for character in value:
        if character.isalnum() and hidden > 0:
            hidden -= 1
            result.append("*")
        else:
            result.append(character)
    return value[:2] + "".join(result)[2:] if kind == "iban" else "".join(result)
