"""Strict reading of registry content, which may be anything: each fault carries the path of the field it is
about.

Paths are spelled as in the custom resource (``spec.steps[1].timeoutMs``), because that is where a person has
to change it. Nothing is converted: a number written as text is a fault, and so is a bool where a number
belongs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import orjson
from pydantic import ValidationError

from beamline_contract.extension import CircuitBreaker
from beamline_contract.model import faults_of, faults_of_validation
from beamline_contract.wire import MAX_JSON_DEPTH
from beamline_sdk.breaker import BreakerSettings

from .retry import BudgetSettings

T = TypeVar("T", bound=str)

_DEFAULT_BREAKER = BreakerSettings.of(CircuitBreaker())


class BrokenRecordError(Exception):
    """A record that can't be compiled: ``field`` and ``reason`` for the report. Never leaves the compiler."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def shown(value: object) -> str:
    """A value of unknown size and kind, short enough for a message."""
    return repr(value[:60] if isinstance(value, str) else value)[:80]


def text(value: object, at: str, *, longest: int = 253) -> str:
    """A non-empty string of at most ``longest`` characters that can be encoded."""
    if not isinstance(value, str) or not value or len(value) > longest:
        raise BrokenRecordError(at, f"must be text of 1 to {longest} characters, got {shown(value)}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise BrokenRecordError(at, "must be valid Unicode, has a lone surrogate")
    return value


def optional_text(value: object, at: str) -> str | None:
    """As :func:`text`; None stays None."""
    return None if value is None else text(value, at)


def whole(value: object, at: str, low: int, high: int) -> int:
    """An integer within the bounds; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BrokenRecordError(at, f"must be a whole number of {low} to {high}, got {shown(value)}")
    return value


def flag(value: object, at: str) -> bool:
    """True or False, nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise BrokenRecordError(at, f"must be true or false, got {shown(value)}")
    return value


def one_of(value: object, at: str, allowed: Sequence[T]) -> T:
    """One of the words of a closed list."""
    if not isinstance(value, str) or value not in allowed:
        raise BrokenRecordError(at, f"must be one of {', '.join(allowed)}, got {shown(value)}")
    return cast("T", value)


def mapping(value: object, at: str) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, Mapping):
        raise BrokenRecordError(at, f"must be an object, got {shown(value)}")
    return value


def sequence(value: object, at: str, longest: int) -> Sequence[Any]:
    """A list of at most ``longest`` entries."""
    if not isinstance(value, list | tuple) or len(value) > longest:
        raise BrokenRecordError(at, f"must be a list of at most {longest} entries, got {shown(value)}")
    return value


def texts(value: object, at: str, most: int, *, longest: int = 253) -> tuple[str, ...]:
    """A list of at most ``most`` texts."""
    return tuple(
        text(entry, f"{at}[{number}]", longest=longest)
        for number, entry in enumerate(sequence(value, at, most))
    )


def serialised(value: Mapping[str, Any], at: str) -> orjson.Fragment:
    """The JSON of a config, made once instead of in every request."""
    try:
        data = orjson.dumps(value)
    except (TypeError, RecursionError) as error:
        raise BrokenRecordError(at, f"is not JSON: {error}") from error
    if not brackets_within(data, MAX_JSON_DEPTH - 1) and depth(value) >= MAX_JSON_DEPTH:
        raise BrokenRecordError(at, f"must be nested less than {MAX_JSON_DEPTH} levels")
    return orjson.Fragment(data)


def depth(value: object) -> int:
    """How many objects and lists are nested; 0 for a plain value. Stops counting beyond the limit."""
    deepest = 0
    level: list[Any] = [value]
    while deepest <= MAX_JSON_DEPTH:
        nested: list[Any] = [node for node in level if isinstance(node, dict | list)]
        if not nested:
            break
        deepest += 1
        level = [child for node in nested for child in (node.values() if isinstance(node, dict) else node)]
    return deepest


def brackets_within(data: bytes, most: int) -> bool:
    """Whether at most ``most`` objects and lists begin in JSON text, which then is no deeper than that.

    By leaps from one bracket to the next: counting looks at each byte, and most of them are text.
    """
    for bracket in (b"{", b"["):
        at = data.find(bracket)
        while at >= 0:
            if not most:
                return False
            most -= 1
            at = data.find(bracket, at + 1)
    return True


def number(value: object, at: str, low: float, high: float) -> float:
    """A finite number within the bounds; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BrokenRecordError(at, f"must be a number of {low} to {high}, got {shown(value)}")
    return float(value)


def sticky_key(value: object, at: str) -> str | None:
    """``tenant``, or ``header:NAME`` with the name in lower case; None stays None."""
    key = optional_text(value, at)
    if key is None or key == "tenant":
        return key
    if not key.startswith("header:") or key == "header:":
        raise BrokenRecordError(at, f"must be tenant or header:NAME, got {shown(value)}")
    return key.lower()


def breaker(value: object, at: str) -> BreakerSettings:
    """Breaker settings; the defaults where there are none."""
    if value is None:
        return _DEFAULT_BREAKER
    try:
        model = CircuitBreaker.model_validate(mapping(value, at))
    except ValidationError as error:
        fault = faults_of_validation(error, at)[0]
        raise BrokenRecordError(fault.path, fault.message) from error
    for fault in faults_of(model, at=at):
        raise BrokenRecordError(fault.path, fault.message)
    return BreakerSettings.of(model)


def retry_budget(value: object, at: str) -> BudgetSettings | None:
    """A retry budget with the defaults of what it leaves out; None where there is none."""
    if value is None:
        return None
    stated = mapping(value, at)
    tokens = whole(stated.get("tokens", 10), f"{at}.tokens", 1, 1_000)
    threshold = whole(stated.get("threshold", 5), f"{at}.threshold", 0, tokens - 1)
    return BudgetSettings.of(tokens, number(stated.get("refill", 0.1), f"{at}.refill", 0.001, 1), threshold)
