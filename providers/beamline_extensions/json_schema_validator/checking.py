"""Checking a text against a JSON Schema: which fields are wrong, and by which rule. Pure.

A schema comes from whoever configures, a text from a model that anybody may talk to. So patterns are
matched by
RE2, whose time is linear, and not by the library's default; nothing is ever fetched for a reference; and a
fault names path and rule but not the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import jsonschema
import orjson
import re2
from jsonschema import validators
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

_FENCED: Final = re.compile(r"\A\s*```[A-Za-z0-9_+-]*[ \t]*\n(.*)\n[ \t]*```\s*\Z", re.DOTALL)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class SchemaFaultError(ValueError):
    """The schema can't be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class JsonFault:
    """``path`` such as ``$.items[0].price``; ``rule`` is the schema's keyword, or ``json`` for what is no
    JSON."""

    path: str
    rule: str

    def to_wire(self) -> dict[str, str]:
        """For an error's details."""
        return {"path": self.path, "rule": self.rule}


class Checker:
    """One schema, compiled. Raises :class:`SchemaFaultError`."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        draft = validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            draft.check_schema(dict(schema))
        except SchemaError as fault:
            raise SchemaFaultError(f"{path_of(fault)}: {fault.validator} does not hold") from fault
        names = {name for _, name, _ in _walk(schema, "$")}
        if {"unevaluatedProperties", "patternProperties"} <= names:
            raise SchemaFaultError("unevaluatedProperties and patternProperties exclude each other here")
        for path, name, value in _walk(schema, "$"):
            if name in {"$ref", "$dynamicRef"} and not (isinstance(value, str) and value.startswith("#")):
                raise SchemaFaultError(f"{path}: references must stay inside the schema (#/...)")
            if name == "pattern":
                _usable(value, path)
            if name == "patternProperties" and isinstance(value, dict):
                for expression in value:
                    _usable(expression, path)
        linear = validators.extend(draft, _LINEAR)  # type: ignore[no-untyped-call]  # jsonschema
        self._validator = linear(schema, registry=Registry())
        try:
            list(self._validator.iter_errors({}))
        except Unresolvable as fault:
            raise SchemaFaultError(f"a reference leads nowhere: {fault.ref}") from fault
        except RecursionError as fault:
            raise SchemaFaultError("a reference leads to itself") from fault

    def faults(self, text: str, at_most: int) -> list[JsonFault]:
        """What is wrong with ``text``, the first ``at_most`` faults; none where it satisfies the schema."""
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return [JsonFault("$", "json")]
        try:
            found = islice(self._validator.iter_errors(value), at_most)
            return [JsonFault(path_of(fault), str(fault.validator)) for fault in found]
        except (RecursionError, Unresolvable):
            return [JsonFault("$", "depth")]


def unwrapped(text: str) -> str:
    """The inside of a text that is one fenced code block; else the text without blanks at its ends."""
    fenced = _FENCED.match(text)
    return fenced.group(1).strip() if fenced else text.strip()


def path_of(fault: ValidationError | SchemaError) -> str:
    """``$.items[0]["odd name"]``."""
    parts = ["$"]
    for part in fault.absolute_path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            parts.append(f".{part}" if _PLAIN_NAME.match(part) else f"[{orjson.dumps(part).decode()}]")
    return "".join(parts)


def _walk(node: object, path: str) -> Iterator[tuple[str, str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            here = f"{path}.{name}"
            yield here, name, value
            if name not in {"const", "enum", "default", "examples"}:
                yield from _walk(value, here)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _walk(value, f"{path}[{number}]")


def _usable(expression: object, path: str) -> None:
    if isinstance(expression, str) and _compiled(expression) is None:
        raise SchemaFaultError(f"{path}: not a regular expression that RE2 can match in linear time")


def _compiled(expression: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error:
        return None


def _pattern(validator: Any, expression: str, instance: object, schema: object) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _compiled(expression).search(instance):
        yield ValidationError("does not match the pattern")


def _pattern_properties(
    validator: Any, properties: Mapping[str, Any], instance: object, schema: object
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for expression, below in properties.items():
        pattern = _compiled(expression)
        for name, value in instance.items():
            if pattern.search(name):
                yield from validator.descend(value, below, path=name, schema_path=expression)


def _additional_properties(
    validator: Any, allowed: object, instance: object, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    patterns = [_compiled(expression) for expression in schema.get("patternProperties", ())]
    for name, value in instance.items():
        if name in schema.get("properties", ()) or any(pattern.search(name) for pattern in patterns):
            continue
        if allowed is False:
            yield ValidationError("is not among the properties", path=(name,))
        else:
            yield from validator.descend(value, allowed, path=name)


_LINEAR: Final = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
"""The keywords that the library would match with ``re``, whose time is not linear."""
