"""The CRDs, generated from the models: structural schemas, bounds, defaults, rules, columns, subresources.

``beamline crds`` prints them and ``make crds`` writes them beside this package; a check fails when those are
stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from .conditions import ConditionType, Reason
from .extension import ExtensionSpec
from .model import Model
from .names import CATEGORY, GROUP, NAME_PATTERN, VERSION
from .objects import NAME_RULE, PLURAL, Kind
from .policy import RoutingPolicySpec

_SPECS: dict[Kind, type[Model]] = {"Extension": ExtensionSpec, "RoutingPolicy": RoutingPolicySpec}
_SHORT: dict[Kind, list[str]] = {"Extension": ["ext"], "RoutingPolicy": ["rp"]}

_STRING = {"type": "string", "maxLength": 1024}
_CONDITION = {
    "type": "object",
    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    "properties": {
        "type": {"type": "string", "maxLength": 63},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "reason": {"type": "string", "maxLength": 128, "pattern": "^[A-Za-z]([A-Za-z0-9]*)$"},
        "message": {"type": "string", "maxLength": 4096},
    },
}
_COMMON_STATUS: dict[str, Any] = {
    "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
    "conditions": {
        "type": "array",
        "maxItems": 16,
        "items": _CONDITION,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    },
    "id": {**_STRING, "description": "The object's id in the registry."},
    "revision": {
        "type": "integer",
        "format": "int64",
        "description": "Registry revision that holds the observed generation.",
    },
    "lastReconcileAt": {
        **_STRING,
        "description": "Value of the annotation beamline.io/reconcile-at that was acted upon last.",
    },
    "programmed": {
        **_STRING,
        "description": "Routers that serve the observed generation, of those alive: 2/3.",
    },
}
UNSEEN_STATUS: dict[str, Any] = {
    "observedGeneration": 0,
    "conditions": [
        {
            "type": ConditionType.READY.value,
            "status": "Unknown",
            "observedGeneration": 0,
            "lastTransitionTime": "1970-01-01T00:00:00Z",
            "reason": Reason.PENDING.value,
            "message": "No operator has looked at this object yet: one has to run and serve this namespace.",
        }
    ],
}
"""The default of ``status``, as Gateway API has it: whoever reads an object without conditions takes it for
ready, so there is no moment at which one has none, with no operator at all neither.
"""
_REVISION: dict[str, Any] = {
    "generation": {"type": "integer", "format": "int64"},
    "revision": _STRING,
    "image": _STRING,
    "workload": {
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": True,
    },
}
_STATUS: dict[Kind, dict[str, Any]] = {
    "Extension": {
        "subject": {**_STRING, "description": "NATS subject, stated or derived."},
        "replicas": {"type": "integer", "format": "int32"},
        "readyReplicas": {"type": "integer", "format": "int32"},
        "selector": {**_STRING, "maxLength": 4096, "description": "Label selector of the workload's pods."},
        "health": {
            "type": "object",
            "description": "Calls of the last five minutes over all routers; written on transitions only.",
            "properties": {
                "status": {**_STRING, "description": "healthy, degraded, failing or no_data."},
                "score": {
                    "type": "integer",
                    "format": "int32",
                    "description": "Successful calls in percent, to within five points.",
                },
            },
        },
        "breaker": {**_STRING, "description": "Worst breaker state over all routers."},
        "lastError": {**_STRING, "description": "Code of the last failure, without content."},
        "canary": {
            "type": "object",
            "description": "How far the canary got; a new leader goes on from here.",
            "required": ["state", "weight"],
            "properties": {
                "state": {
                    **_STRING,
                    "description": "Waiting, Progressing, Paused, Promoted, RolledBack or Aborted.",
                },
                "step": {
                    "type": "integer",
                    "format": "int32",
                    "description": "Counts from 1; 0 before the first.",
                },
                "weight": {
                    "type": "integer",
                    "format": "int32",
                    "minimum": 0,
                    "maximum": 100,
                    "description": "Percent of the requests to the base.",
                },
                "since": {"type": "string", "format": "date-time", "description": "When this step began."},
                "revision": {**_STRING, "description": "Hash of the spec that is tried."},
                "message": _STRING,
                "promote": {
                    **_STRING,
                    "description": "Value of beamline.io/promote that was acted upon last.",
                },
                "abort": {**_STRING, "description": "Value of beamline.io/abort that was acted upon last."},
            },
        },
        "lastGood": {
            "type": "object",
            "description": "The last revision of the workload that was ready, as it was asked for.",
            "properties": {
                **_REVISION,
                "since": {
                    "type": "string",
                    "format": "date-time",
                    "description": "While it is on probation: when it became the last good one.",
                },
                "before": {
                    "type": "object",
                    "description": "While it is on probation: the one before, which comes back if it fails.",
                    "properties": _REVISION,
                },
            },
        },
        "rolledBack": {
            "type": "object",
            "description": "The revision that failed, while the last good one runs in its place.",
            "properties": {
                "generation": {"type": "integer", "format": "int64"},
                "revision": _STRING,
                "message": _STRING,
            },
        },
        "workloadHash": {**_STRING, "description": "Hash of the workload that was applied last."},
    },
    "RoutingPolicy": {
        "complexity": {"type": "integer", "format": "int32"},
        "references": {
            "type": "array",
            "maxItems": 64,
            "description": "Each reference, where it leads, and what is wrong there.",
            "items": {
                "type": "object",
                "required": ["path", "namespace", "name", "reason"],
                "properties": {
                    name: dict(_STRING) for name in ("path", "namespace", "name", "reason", "message")
                },
            },
        },
        "warnings": {"type": "array", "maxItems": 32, "items": _STRING},
        "providers": {**_STRING, "description": "Ids that the policy may select, for the printer column."},
    },
}


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
                "properties": {**_COMMON_STATUS, **_STATUS[kind]},
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
