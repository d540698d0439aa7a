"""One wrong object for each bound of the CRDs' schemas, made by walking them so that none is forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from beamline_contract.crd import crd
from beamline_contract.objects import KINDS, Kind

from .objects import full

Path = tuple[str | int, ...]
ITEM, VALUE = "[]", "{}"

_SAYS = {
    "type": r"must be of type|invalid type|must be (an )?integer or string",
    "enum": r"Unsupported value",
    "minimum": r"should be greater than",
    "maximum": r"should be less than or equal to",
    "minLength": r"should be at least \d+ chars long",
    "maxLength": r"may not be more than \d+ (bytes|characters)|Too long",
    "pattern": r"should match '",
    "minItems": r"should have at least \d+ items",
    "maxItems": r"must have at most \d+ items",
    "maxProperties": r"must have at most \d+ (items|properties)",
    "required": r"Required value",
    "unknown": r"unknown field",
}
_WRONG_TYPES: dict[str, tuple[Any, ...]] = {
    "string": (5, True, ["a"], {}),
    "integer": ("5", 1.5, True, [1]),
    "number": ("0.5", True, {}),
    "boolean": ("true", 1, []),
    "object": ("text", [], 1),
    "array": ("text", {}, 1),
}
_STRANGE = ("!", " ", "\u00e9", "\n", "A B", "-", ".", "no blanks\there")


@dataclass(frozen=True)
class BoundCase:
    """``document`` breaks one bound of the schema at ``field``; the server has to say ``says``."""

    id: str
    kind: Kind
    document: dict[str, Any]
    field: str
    says: str


def spec_schema(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
        "spec"
    ]
    return schema


def nodes(
    schema: Mapping[str, Any], at: tuple[str, ...] = ("spec",)
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every node of a schema with its path, with ``[]`` for an item and ``{}`` for a map's value."""
    yield at, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, (*at, name))
    if "items" in schema:
        yield from nodes(schema["items"], (*at, ITEM))
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from nodes(schema["additionalProperties"], (*at, VALUE))


def bound_cases() -> list[BoundCase]:
    return [
        case for kind in KINDS for at, node in nodes(spec_schema(kind)) for case in _cases(kind, at, node)
    ]


def _cases(kind: Kind, at: tuple[str, ...], node: Mapping[str, Any]) -> Iterator[BoundCase]:
    base = full(kind)
    if at[-1] == "minAvailable":  # excludes the other, which the full object has
        base["spec"]["workload"]["disruption"] = {"minAvailable": "50%"}
    place = _locate(base, at)
    if place is None:
        raise AssertionError(
            f"{kind} {'.'.join(at)} is not set in the full object of crdcases/objects.py: add it there"
        )
    sound = _get(base, place)

    def case(keyword: str, value: Any, note: str = "", child: str | None = None) -> BoundCase:
        document = deepcopy(base)
        _set(document, place, value)
        field = field_path((*place, child) if child else place)
        words = " ".join(filter(None, (kind, ".".join(at), keyword, child, note)))
        return BoundCase(words, kind, document, field, _SAYS[keyword])

    if node.get("x-kubernetes-int-or-string"):
        yield from (case("type", wrong, f"got {wrong!r}") for wrong in (1.5, True, [], {}))
    else:
        yield from (case("type", wrong, f"got {wrong!r}") for wrong in _WRONG_TYPES[node["type"]])
    for keyword, value, note in _bounds(node, sound):
        yield case(keyword, value, note)
    for name in node.get("required", ()):
        yield case("required", {key: value for key, value in sound.items() if key != name}, child=name)
        yield case("required", {**sound, name: None}, "null", child=name)
    if "properties" in node:
        yield case("unknown", {**sound, "unheardOf": 1}, child="unheardOf")
        yield case("unknown", {**sound, "unheardOf": None}, "null", child="unheardOf")


def _bounds(node: Mapping[str, Any], sound: Any) -> Iterator[tuple[str, Any, str]]:
    step = 1 if node.get("type") != "number" else 0.001
    if "enum" in node:
        yield "enum", "no-such-word", ""
        yield "enum", str(node["enum"][0]).swapcase(), "in another case"
    if "minimum" in node:
        yield "minimum", node["minimum"] - (0 if node.get("exclusiveMinimum") else step), ""
    if "maximum" in node:
        yield "maximum", node["maximum"] + step, ""
        yield "maximum", 10**30, "far above"
    if node.get("minLength"):
        yield "minLength", "a" * (node["minLength"] - 1), ""
    if "maxLength" in node:
        yield "maxLength", "1" * (node["maxLength"] + 1), ""
    if "pattern" in node:
        fitting = [text for text in _STRANGE if len(text) >= node.get("minLength", 0)]
        strange = [*fitting, *(text * 3 for text in _STRANGE)]
        yield "pattern", next(text for text in strange if not re.fullmatch(node["pattern"], text)), ""
        yield "pattern", f"{sound}\n", "a line break at the end"
    if node.get("minItems"):
        yield "minItems", list(sound[: node["minItems"] - 1]), ""
    if "maxItems" in node:
        yield "maxItems", [sound[0]] * (node["maxItems"] + 1), ""
    if "maxProperties" in node:
        yield "maxProperties", {f"k{number}": "v" for number in range(node["maxProperties"] + 1)}, ""


def field_path(place: Path) -> str:
    """``("spec", "steps", 0, "action")`` as ``spec.steps[0].action``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _locate(value: Any, at: tuple[str, ...]) -> Path | None:
    if not at:
        return ()
    head, rest = at[0], at[1:]
    if head == ITEM:
        keys: list[str | int] = list(range(len(value)))
    elif head == VALUE:
        keys = list(value)
    else:
        keys = [head] if head in value else []
    for key in keys:
        found = _locate(value[key], rest)
        if found is not None:
            return (key, *found)
    return None


def _get(value: Any, place: Path) -> Any:
    for part in place:
        value = value[part]
    return value


def _set(value: Any, place: Path, new: Any) -> None:
    _get(value, place[:-1])[place[-1]] = new
