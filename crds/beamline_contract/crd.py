"""The CRDs, generated from the models: structural schemas, bounds, defaults, rules, columns, subresources.

``beamline crds`` prints them and ``make crds`` writes them beside this package; a check fails when those are
stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from .crd_status import COMMON_STATUS, STATUS, UNSEEN_STATUS
from .extension import ExtensionSpec
from .model import Model
from .names import CATEGORY, GROUP, NAME_PATTERN, VERSION
from .objects import NAME_RULE, PLURAL, Kind
from .policy import RoutingPolicySpec

_SPECS: dict[Kind, type[Model]] = {"Extension": ExtensionSpec, "RoutingPolicy": RoutingPolicySpec}
_SHORT: dict[Kind, list[str]] = {"Extension": ["ext"], "RoutingPolicy": ["rp"]}


def _column(
    name: str, path: str, kind: str = "string", priority: int = 0, description: str = ""
) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if priority:
        column["priority"] = priority
    if description:
        column["description"] = description
    return column


def _condition_path(name: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].{part}'


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_READY = [
    _column("Ready", _condition_path("Ready", "status")),
    _column("Reason", _condition_path("Ready", "reason")),
    _column(
        "Programmed", ".status.programmed", description="Routers that serve this generation, of those alive"
    ),
]
_COLUMNS: dict[Kind, list[dict[str, Any]]] = {
    "Extension": [
        _column("Type", ".spec.type"),
        *_READY,
        _column("Breaker", ".status.breaker"),
        _column("Replicas", ".status.readyReplicas", "integer"),
        _AGE,
        _column("Subject", ".status.subject", priority=1),
        _column("Timeout", ".spec.timeoutMs", "integer", 1, "Per attempt, milliseconds"),
        _column("Retry", ".spec.retry", "integer", 1),
        _column("Enabled", ".spec.enabled", "boolean", 1),
        _column("Health", ".status.health.status", priority=1),
        _column("LastError", ".status.lastError", priority=1),
        _column("Canary", ".status.canary.state", priority=1, description="Where the canary stands"),
        _column("Weight", ".status.canary.weight", "integer", 1, "Percent that the canary takes"),
        _column("Revision", ".status.revision", "integer", 1),
        _column("Message", _condition_path("Ready", "message"), priority=1),
    ],
    "RoutingPolicy": [
        _column("Priority", ".spec.priority", "integer"),
        *_READY,
        _column("Providers", ".status.providers"),
        _AGE,
        _column("Deadline", ".spec.deadlineMs", "integer", 1, "Whole request, milliseconds"),
        _column("Complexity", ".status.complexity", "integer", 1),
        _column("Revision", ".status.revision", "integer", 1),
        _column("Message", _condition_path("Ready", "message"), priority=1),
    ],
}


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of ``kind``."""
    plural = PLURAL[kind]
    subresources: dict[str, Any] = {"status": {}}
    if kind == "Extension":
        subresources["scale"] = {
            "specReplicasPath": ".spec.workload.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "beamline"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": _SHORT[kind],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root_schema(kind)},
                    "subresources": subresources,
                    "additionalPrinterColumns": _COLUMNS[kind],
                }
            ],
        },
    }


class _Plain(yaml.SafeDumper):
    """Writes a part that occurs twice twice: not every reader of manifests knows anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def crd_yaml(kind: Kind) -> str:
    """The CRD as a YAML document, with a first line that says where it comes from."""
    body = yaml.dump(crd(kind), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
    return "# Generated from crds/beamline_contract by `make crds`: edit the models, not this file.\n" + body


def _root_schema(kind: Kind) -> dict[str, Any]:
    model = _SPECS[kind]
    description = (model.__doc__ or "").strip().splitlines()[0]
    return {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {**spec_schema(model), "description": description},
            "status": {
                "type": "object",
                "default": UNSEEN_STATUS,
                "properties": {**COMMON_STATUS, **STATUS[kind]},
            },
        },
        "x-kubernetes-validations": [
            {"rule": f"self.metadata.name.matches('{NAME_PATTERN}')", "message": NAME_RULE},
        ],
    }


def spec_schema(model: type[Model]) -> dict[str, Any]:
    """The structural schema of ``model``: references inlined, nullable unions folded, rules attached."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(schema, schema.get("$defs", {}), _rules_by_title())


def _rules_by_title() -> dict[str, type[Model]]:
    pending: list[type[Model]] = [Model]
    found: dict[str, type[Model]] = {}
    while pending:
        model = pending.pop()
        found[model.__name__] = model
        pending.extend(model.__subclasses__())
    return found


_KEPT = (
    "type", "format", "enum", "default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "maxLength", "pattern", "minItems", "maxItems", "maxProperties",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
)  # fmt: skip


def _structural(
    node: Mapping[str, Any], defs: Mapping[str, Any], models: Mapping[str, type[Model]]
) -> dict[str, Any]:
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        return {**_structural(target, defs, models), **_scalars(node)}
    if "anyOf" in node:  # the only union in the models is "or absent"
        (inner,) = (option for option in node["anyOf"] if option.get("type") != "null")
        return {
            **_structural(inner, defs, models),
            **_scalars({k: v for k, v in node.items() if k != "default"}),
        }
    if "const" in node:
        node = {**node, "enum": [node["const"]], "type": "string"}
    schema = _scalars(node)
    if "exclusiveMinimum" in schema:  # OpenAPI 3.0 spells it as a flag
        schema["minimum"] = schema.pop("exclusiveMinimum")
        schema["exclusiveMinimum"] = True
    if "properties" in node:
        schema["properties"] = {
            name: _structural(child, defs, models) for name, child in node["properties"].items()
        }
        if node.get("required"):
            schema["required"] = list(node["required"])
    if "items" in node:
        schema["items"] = _structural(node["items"], defs, models)
        schema.setdefault("x-kubernetes-list-type", "atomic")
    if "patternProperties" in node:  # a map whose keys have a pattern, for which OpenAPI 3.0 has no word
        ((pattern, child),) = node["patternProperties"].items()
        longest = node["propertyNames"]["maxLength"]
        schema["additionalProperties"] = _structural(child, defs, models)
        schema["x-kubernetes-validations"] = [
            {
                "rule": f"self.all(key, key.size() <= {longest} && key.matches('{pattern}'))",
                "message": f"every key must match {pattern} and have at most {longest} characters",
            }
        ]
    elif isinstance(node.get("additionalProperties"), Mapping):
        schema["additionalProperties"] = _structural(node["additionalProperties"], defs, models)
    model = models.get(str(node.get("title", "")))
    if model is not None and model.RULES and schema.get("type") == "object":
        schema["x-kubernetes-validations"] = [_validation(rule) for rule in model.RULES]
    return schema


def _validation(rule: Any) -> dict[str, Any]:
    validation: dict[str, Any] = {"rule": rule.cel, "message": rule.message}
    if rule.field:
        validation["fieldPath"] = f".{rule.field}"
    return validation


def _scalars(node: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: node[name] for name in _KEPT if name in node}
    if "default" in kept:
        kept["default"] = _without_empties(kept["default"])
        if kept["default"] in (None, [], {}):  # an absent list is an empty one: stored objects stay short
            del kept["default"]
    if "description" in node:
        kept["description"] = " ".join(str(node["description"]).replace("``", "").split())
    return kept


def _without_empties(default: Any) -> Any:
    if not isinstance(default, Mapping):
        return default
    pruned = {name: _without_empties(value) for name, value in default.items()}
    return {name: value for name, value in pruned.items() if value not in (None, [], {})}
