"""How a find is masked: pure functions."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, Literal

from beamline_extensions.detectors import Finding, Kind
from beamline_extensions.detectors.folding import fold

Style = Literal["token", "partial", "hash"]
Hider = Callable[[Kind, str], str]
"""What stands in the place of a value."""

TOKENS: Final[dict[Kind, str]] = {
    "credit_card": "[CREDIT_CARD]",
    "ssn": "[SSN]",
    "email": "[EMAIL]",
    "phone": "[PHONE]",
    "iban": "[IBAN]",
}
HASH_LETTERS: Final = 16
"""Letters of a hash: 64 bits, so that two values of one tenant practically never share one."""
_LETTERS: Final = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


def masked(text: str, findings: list[Finding], hide: Hider) -> str:
    """``text`` with every finding replaced. ``findings`` are in order and do not overlap."""
    parts: list[str] = []
    position = 0
    for finding in findings:
        parts += (text[position : finding.start], hide(finding.kind, text[finding.start : finding.end]))
        position = finding.end
    parts.append(text[position:])
    return "".join(parts)


def token(kind: Kind, value: str) -> str:
    """The kind alone: ``[EMAIL]``."""
    return TOKENS[kind]


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


def hashed(key: bytes, tenant_id: str) -> Hider:
    """The same value always gets the same letters: ``[EMAIL:kfmcnpjbaglhidoe]``.

    Keyed, because there are only a billion social security numbers: a plain hash of one is looked up, not
    broken. A public salt would not change that. The tenant is hashed with the value, so that nobody can tell
    whether two tenants know the same person. However a value is spelled (blanks, case, digits of another
    script) it is the same value. Letters only: digits could look like a number again.
    """

    def hide(kind: Kind, value: str) -> str:
        plain = "".join(filter(str.isalnum, fold(value).text)) if kind != "email" else fold(value).text
        message = "\0".join((tenant_id, kind, plain.lower())).encode()
        digest = hmac.digest(key, message, "sha256").hex()[:HASH_LETTERS]
        return f"{TOKENS[kind][:-1]}:{digest.translate(_LETTERS)}]"

    return hide
