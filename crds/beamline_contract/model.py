"""How the custom resources are written as models: one base class, and rules that hold in two places at once.

A bound on one field (length, range, pattern) is a pydantic constraint and becomes OpenAPI. What spans fields is a
:class:`Rule`: its ``cel`` goes into the CRD, where the API server evaluates it, and its ``holds`` says the same in
Python, for manifests that never meet an API server (``beamline up``, ``beamline explain``). The cluster tests apply
every example to both and compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel

MAX_CONFIG_KEYS = 256
MAX_CONFIG_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule over several fields of a model.

    ``field`` is the path, relative to the model, that a person has to change. A ``transition`` rule compares with the
    previous version of the object and is skipped when there is none.
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
    """Base of everything in a custom resource: camelCase outside, snake_case inside, no unknown fields, frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()

    def to_manifest(self) -> dict[str, Any]:
        """The camelCase form with defaults filled in and unset fields left out, as the API server would store it."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


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
    return value


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
    """Every rule that ``model`` or a model inside it breaks. ``old`` is the version before, for transition rules."""
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
    """Translates pydantic's report into faults with a Kubernetes field path and the value that was refused."""
    return tuple(
        Fault(_path(at, entry["loc"]), _words(entry["msg"], entry["type"], entry.get("input")))
        for entry in error.errors(include_url=False, include_context=False)
    )


def _path(at: str, loc: tuple[int | str, ...]) -> str:
    path = at
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in {"int", "str", "[key]"}:
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
