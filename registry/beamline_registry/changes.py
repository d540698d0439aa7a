"""What changed between two records, field by field, as the audit log states it.

Free-form fields are taken apart one level (``config.model``), and whatever stands under a key that speaks of
a secret is masked: secrets belong into a Secret, but an audit log is the wrong place to find out that
somebody forgot.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from beamline_contract.projection import ExtensionRecord, PolicyRecord

from .canonical import NotStorableError, canonical

Record: TypeAlias = ExtensionRecord | PolicyRecord

MASK: Final = "(masked)"
_SECRET: Final = re.compile(
    r"api[-_.]?key|secret|passw(or)?d|credential|private[-_.]?key|authorization|(^|[-_.])auth($|[-_.])",
    re.IGNORECASE,
)
_TOKEN: Final = re.compile(r"token", re.IGNORECASE)  # but max_tokens is a number

_PLAIN: Final = (
    "type", "subject", "namespace", "name", "generation",
    "timeout_ms", "retry", "enabled", "version", "weight",
)  # fmt: skip
_FREE_FORM: Final = ("config", "metadata", "spec", "policy")
# Fields of the spec that have a column of their own.
_SPEC_COLUMNS: Final = frozenset(
    {"type", "subject", "timeoutMs", "retry", "enabled", "config", "metadata", "version", "weight"}
)


def same_content(one: Record, other: Record) -> bool:
    """Whether two records say the same, whatever their revision. An unknown creation time agrees with any."""
    return (
        type(one) is type(other)
        and one.uid == other.uid
        and (not one.created_at or not other.created_at or one.created_at == other.created_at)
        and _content(one) == _content(other)
    )


def digest(record: Record) -> str:
    """The same for any two records that say the same, and for no others. The creation time is left out: not
    everybody who compares knows it.
    """
    try:
        content = _content(record)
    except NotStorableError:  # only a table that was written by hand holds such a thing
        return "unreadable"
    return hashlib.sha256(record.uid.encode() + b"\0" + content).hexdigest()


def changes_between(before: Record | None, after: Record | None) -> dict[str, Any]:
    """``{field: {"from": ..., "to": ...}}``; None where there is (or was) no such field."""
    old, new = dict(_fields(before)), dict(_fields(after))
    changes: dict[str, Any] = {}
    for field in sorted(old.keys() | new.keys()):
        was, is_now = old.get(field), new.get(field)
        if canonical(was) != canonical(is_now):
            key = field.rpartition(".")[2]
            changes[field] = {"from": masked(key, was), "to": masked(key, is_now)}
    return changes


def masked(key: str, value: Any) -> Any:
    """``value`` with everything hidden that stands under a key that speaks of a secret."""
    if value is None:
        return None
    if _SECRET.search(key) or (_TOKEN.search(key) and not isinstance(value, bool | int | float)):
        return MASK
    if isinstance(value, Mapping):
        return {name: masked(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked("", item) for item in value]
    return value


def _content(record: Record) -> bytes:
    names = (*_PLAIN, *_FREE_FORM)
    return canonical({name: getattr(record, name) for name in names if hasattr(record, name)})


def _fields(record: Record | None) -> Iterator[tuple[str, Any]]:
    if record is None:
        return
    for name in _PLAIN:
        if hasattr(record, name):
            yield name, getattr(record, name)
    for name in _FREE_FORM:
        for key, value in getattr(record, name, {}).items():
            if name != "spec" or key not in _SPEC_COLUMNS:
                yield f"{name}.{key}", value
