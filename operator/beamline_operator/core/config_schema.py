"""Does a configuration fit the JSON Schema that its extension publishes? Pure; each fault names its path.

The schema comes from whoever answers on NATS, so nothing in it is trusted: a ``$ref`` that leads out of it is
never fetched, and a schema that is none says nothing about the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

MAX_FAULTS: Final = 5
_MAX_VALUE: Final = 60
_HIDDEN: Final[dict[type, str]] = {str: "this text", list: "this list", dict: "this object"}


def config_faults(
    schema: Mapping[str, Any], config: Mapping[str, Any], at: str = "spec.config"
) -> tuple[str, ...]:
    """Sentences such as ``spec.config.latency_ms: -1 is less than the minimum of 0``, in the order of their
    paths; empty where the configuration fits, or the schema can't be used. ``at`` is where it stands.
    """
    return _all_faults(schema, config, at)[:MAX_FAULTS]


def override_faults(
    schema: Mapping[str, Any], config: Mapping[str, Any], override: Mapping[str, Any], at: str
) -> tuple[str, ...]:
    """What ``override``, laid over ``config`` key by key at the top level, breaks. A fault that ``config``
    has without it is its own object's business, and not told here.
    """
    own = set(_all_faults(schema, config, at))
    both = _all_faults(schema, {**config, **override}, at)
    return tuple(fault for fault in both if fault not in own)[:MAX_FAULTS]


def _all_faults(schema: Mapping[str, Any], config: Mapping[str, Any], at: str) -> tuple[str, ...]:
    try:
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema, registry=Registry())
        errors = sorted(validator.iter_errors(config), key=lambda error: error.json_path)
    except (SchemaError, Unresolvable, RecursionError):
        return ()
    return tuple(f"{_path(error, at)}: {_words(error)}" for error in errors)


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """Why ``schema`` is no JSON Schema of itself, in words; None where it is one."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return (
            f"{'.'.join(map(str, error.absolute_path)) or 'it'} is not JSON Schema: {_short(error.message)}"
        )
    return None


def _path(error: ValidationError, path: str) -> str:
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path


def _words(error: ValidationError) -> str:
    """The fault with the value where that is a number, true, false or null: a text may be a key in the wrong
    place, and what is said here goes into status, events and logs.
    """
    value = _HIDDEN.get(type(error.instance), repr(error.instance))
    if error.validator in {"anyOf", "oneOf", "not", "pattern"}:
        return f"{value} is not one of the forms that it may have"
    return _short(error.message.replace(repr(error.instance), value), 4 * _MAX_VALUE)


def _short(text: str, most: int = _MAX_VALUE) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
