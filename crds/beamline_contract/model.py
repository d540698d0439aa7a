"""How the custom resources are written as models: one base class, and rules that hold in two places at once.

A bound on one field (length, range, pattern) is a pydantic constraint and becomes OpenAPI. What spans fields
is a :class:`Rule`: its ``cel`` goes into the CRD, where the API server evaluates it, and its ``holds`` says
the same in Python, for manifests that never meet an API server (``beamline up``, ``beamline explain``). The
cluster tests apply every example to both and compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

MAX_CONFIG_KEYS = 256
MAX_CONFIG_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule over several fields of a model.

    ``field`` is the path, relative to the model, that a person has to change. A ``transition`` rule compares
    with the previous version of the object and is skipped when there is none.
    """

    cel: str
    message: str
    field: str
    holds: Callable[[Any, Any], bool]
    transition: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an object: where (``spec.steps[1].timeoutMs``), and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class InvalidObjectError(ValueError):
    """An object that breaks rules; ``faults`` holds all of them, not only the first."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


class Model(BaseModel):
    """Base of everything in a custom resource: camelCase outside, snake_case inside, nothing unknown, frozen.

    Types are as strict as the API server's: "5" is no integer, 1 is no boolean, and a null property is an
    absent one. Lists become tuples, so a field that holds one says ``Field(strict=False)``.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_the_api_server_reads(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = {info.alias for info in cls.model_fields.values()} | cls.model_fields.keys()
        return {
            name: as_the_api_server_reads(value)
            for name, value in data.items()
            if value is not None or name not in known
        }

    def to_manifest(self) -> dict[str, Any]:
        """The camelCase form as the API server stores it: defaults filled in, what nobody set left out."""
        return {
            info.alias or name: _as_json(value)
            for name, info in type(self).model_fields.items()
            if (value := getattr(self, name)) is not None
            and (value not in ((), {}) or name in self.model_fields_set)  # the CRD has no empty defaults
        }

    def stated(self) -> dict[str, Any]:
        """The camelCase form without what equals its default: a field that a later version adds, with a
        default, changes nothing here. For fingerprints that must outlive an upgrade.
        """
        return {
            info.alias or name: _stated(value)
            for name, info in type(self).model_fields.items()
            if (value := getattr(self, name)) is not None
            and value not in ((), {})
            and (info.is_required() or value != info.get_default(call_default_factory=True))
        }


def as_the_api_server_reads(value: Any) -> Any:
    """``5.0`` as the integer that it is in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def map_as_the_api_server_reads(data: Any, known: Collection[str] | None = None) -> Any:
    """A map with typed values, without nulls; under a key that is not ``known`` one stays, to be refused."""
    if not isinstance(data, dict):
        return data
    return {
        name: as_the_api_server_reads(value)
        for name, value in data.items()
        if value is not None or (known is not None and name not in known)
    }


def _as_json(value: Any) -> Any:
    match value:
        case Model():
            return value.to_manifest()
        case dict():
            return {key: _as_json(child) for key, child in value.items()}
        case tuple() | list():
            return [_as_json(child) for child in value]
        case _:
            return value


def _stated(value: Any) -> Any:
    match value:
        case Model():
            return value.stated()
        case dict():
            return {key: _stated(child) for key, child in value.items()}
        case tuple() | list():
            return [_stated(child) for child in value]
        case _:
            return value


def _depth_of(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= MAX_CONFIG_DEPTH + 1:
        depth += 1
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return depth


def _bounded_depth(value: dict[str, Any]) -> dict[str, Any]:
    if _depth_of(value) > MAX_CONFIG_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_CONFIG_DEPTH} levels")
    if fault := _not_json(value):
        raise ValueError(fault)
    return value


def _not_json(value: Any) -> str | None:
    """What in a free-form value JSON in a database can't hold, in words.

    YAML and Python know more than JSON does.
    """
    match value:
        case None | bool():
            return None
        case str():
            if "\0" in value:
                return "holds the character U+0000, which can't be stored"
            return (
                "holds half a surrogate pair, which is no text"
                if any("\ud800" <= c <= "\udfff" for c in value)
                else None
            )
        case int():
            return (
                None if -(2**63) <= value < 2**63 else "holds an integer beyond 64 bits: write it as a string"
            )
        case float():
            return None if math.isfinite(value) else f"holds {value}, which is no JSON number"
        case dict():
            odd = [key for key in value if not isinstance(key, str)]
            if odd:
                return f"has the key {odd[0]!r}, which is no string: quote it"
            return next(filter(None, map(_not_json, [*value, *value.values()])), None)
        case list():
            return next(filter(None, map(_not_json, value)), None)
    return f"holds a {type(value).__name__}, which is not JSON: quote it"


FreeForm = Annotated[
    dict[str, Any],
    Field(max_length=MAX_CONFIG_KEYS),
    AfterValidator(_bounded_depth),
    WithJsonSchema(
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "maxProperties": MAX_CONFIG_KEYS}
    ),
]
"""A JSON object whose shape somebody else defines: kept as it is."""


def faults_of(model: Model, old: Model | None = None, at: str = "") -> tuple[Fault, ...]:
    """Every rule that ``model`` or a model inside it breaks.

    ``old`` is the version before, for transition rules.
    """
    return tuple(_walk(model, old, at))


def _walk(model: Model, old: Model | None, at: str) -> Iterator[Fault]:
    for rule in type(model).RULES:
        if rule.transition and old is None:
            continue
        if not rule.holds(model, old):
            yield Fault(".".join(filter(None, (at, rule.field))), rule.message)
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        before = getattr(old, name, None) if old is not None else None
        here = ".".join(filter(None, (at, info.alias or name)))
        if isinstance(value, Model):
            yield from _walk(value, before if isinstance(before, Model) else None, here)
        elif isinstance(value, tuple | list):
            for position, item in enumerate(value):
                if isinstance(item, Model):
                    yield from _walk(item, None, f"{here}[{position}]")


def faults_of_validation(error: ValidationError, at: str = "") -> tuple[Fault, ...]:
    """Translates pydantic's report into faults with a Kubernetes field path and the refused value."""
    entries = error.errors(include_url=False, include_context=False)
    inside = {entry["loc"][:length] for entry in entries for length in range(len(entry["loc"]))}
    return tuple(
        _fault_of(at, entry["loc"], entry["msg"], entry["type"], entry.get("input"))
        for entry in entries
        if entry["type"] != "too_short"
        or entry["loc"] not in inside  # a list of wrong items only is not short
    )


def _fault_of(at: str, loc: tuple[int | str, ...], message: str, kind: str, value: object) -> Fault:
    if loc[-1:] == ("[key]",):
        if kind == "literal_error":  # a map with fixed keys is an object to the API server
            return Fault(_path(at, loc[:-1]), _words(message, "extra_forbidden", value))
        return Fault(
            _path(at, loc[:-2]), "key " + _words(message, kind, value)
        )  # a CEL rule blames the map as well
    return Fault(_path(at, loc), _words(message, kind, value))


def _path(at: str, loc: tuple[int | str, ...]) -> str:
    path = at
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _words(message: str, kind: str, value: object) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a field of this object"
        case _:
            text = message.removeprefix("Value error, ")
            text = text[0].lower() + text[1:]
            return text if isinstance(value, Mapping | list) else f"{text}, got {str(value)[:80]!r}"
