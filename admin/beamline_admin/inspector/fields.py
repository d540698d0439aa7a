"""A config beside its schema: a line per field, with what the schema says and whether it fits. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError

MAX_FIELDS: Final = 200
_WORDS: Final = ("minimum", "maximum", "minLength", "maxLength", "pattern", "format", "minItems", "maxItems")


@dataclass(frozen=True, slots=True)
class Field:
    """One field. ``stated`` is false where the config leaves it to the default."""

    path: str
    rule: str
    about: str
    stated: bool
    value: Any = None
    default: Any = None
    required: bool = False
    known: bool = True
    """Whether the schema speaks of it; true without a schema."""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Fields:
    """``schema`` is false where the extension gives none; ``fault`` concerns no single field."""

    items: tuple[Field, ...]
    schema: bool
    fault: str = ""

    @property
    def faults(self) -> int:
        """How many do not fit."""
        return sum(bool(item.fault) for item in self.items) + bool(self.fault)


def fields_of(config: Mapping[str, Any], schema: Any) -> Fields:
    """The fields of ``config``, in the schema's order, then what only the config has."""
    if not isinstance(schema, Mapping):
        plain = tuple(Field(name, "", "", True, value) for name, value in config.items())
        return Fields(plain[:MAX_FIELDS], False)
    faults, other = _faults(config, schema)
    items = tuple(_walk(config, schema, "", faults))
    return Fields(items[:MAX_FIELDS], True, other)


def _walk(
    config: Mapping[str, Any], schema: Mapping[str, Any], at: str, faults: dict[str, str]
) -> Iterator[Field]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    for name, stated_rule in properties.items():
        path = f"{at}{name}"
        rule: Mapping[str, Any] = stated_rule if isinstance(stated_rule, Mapping) else {}
        stated, value = name in config, config.get(name)
        if isinstance(value, Mapping) and isinstance(rule.get("properties"), Mapping):
            yield from _walk(value, rule, f"{path}.", faults)
            continue
        yield Field(
            path,
            _rule(rule),
            str(rule.get("description", "")),
            stated,
            value,
            rule.get("default"),
            name in required,
            fault=_fault(path, faults),
        )
    for name, value in config.items():
        if name not in properties:
            path = f"{at}{name}"
            yield Field(path, "", "", True, value, known=False, fault=_fault(path, faults))


def _rule(rule: Mapping[str, Any]) -> str:
    """A schema in words: type, choices, bounds."""
    kind = rule.get("type", "")
    said = [" or ".join(map(str, kind)) if isinstance(kind, list) else str(kind)]
    if isinstance(rule.get("enum"), list):
        said = [f"one of {', '.join(map(str, rule['enum']))}"]
    items = rule.get("items")
    if kind == "array" and isinstance(items, Mapping):
        said = [f"list of {_rule(items) or 'anything'}"]
    said += [f"{word} {rule[word]}" for word in _WORDS if word in rule]
    return ", ".join(filter(None, said))


def _faults(config: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Messages by path; and what concerns the whole."""
    try:
        Draft202012Validator.check_schema(schema)
        errors = list(Draft202012Validator(schema).iter_errors(config))
    except SchemaError as error:
        return {}, f"the schema itself is wrong: {error.message}"
    except Exception as error:  # noqa: BLE001 -- references that lead nowhere raise many things; the page says it
        return {}, f"the schema can't be used ({type(error).__name__})"
    found = {_path(error): error.message for error in errors if error.path}
    other = "; ".join(error.message for error in errors if not error.path)
    return found, other[:500]


def _path(error: ValidationError) -> str:
    return ".".join(str(part) for part in error.path if not isinstance(part, int))


def _fault(path: str, faults: Mapping[str, str]) -> str:
    return next((text for at, text in faults.items() if at == path or at.startswith(f"{path}.")), "")[:300]
