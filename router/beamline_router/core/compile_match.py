"""A policy's ``match``, checked. What the criteria mean is said in :mod:`.matching`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .reading import BrokenRecordError, mapping, shown, texts, whole
from .route import Criteria

_AT = "spec.match"
_LONGEST_MODEL = 256


def compile_match(value: object, sticky_key: str | None) -> Criteria:
    """Raises :class:`BrokenRecordError` with the first fault."""
    match = mapping(value if value is not None else {}, _AT)
    models = texts(match.get("models") or (), f"{_AT}.models", 64, longest=_LONGEST_MODEL)
    for position, pattern in enumerate(models):
        if "[" in pattern:
            raise BrokenRecordError(
                f"{_AT}.models[{position}]", f"only * and ? are wildcards, got {shown(pattern)}"
            )
    headers: Mapping[Any, Any] = mapping(match.get("headers") or {}, f"{_AT}.headers")
    for name, wanted in headers.items():
        if not isinstance(name, str) or not isinstance(wanted, str):
            raise BrokenRecordError(
                f"{_AT}.headers", f"must hold text only, got {shown(name)}: {shown(wanted)}"
            )
    return Criteria(
        tenants=frozenset(texts(match.get("tenants") or (), f"{_AT}.tenants", 256)),
        environments=frozenset(texts(match.get("environments") or (), f"{_AT}.environments", 32)),
        models=models,
        headers=tuple(sorted(headers.items())),
        percent=whole(match.get("percent", 100), f"{_AT}.percent", 0, 100),
        sticky_key=sticky_key,
    )
