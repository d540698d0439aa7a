"""The schemas of ``status``: what the operator writes, field by field, for the CRDs (:mod:`.crd`)."""

from __future__ import annotations

from typing import Any

from .conditions import ConditionType, Reason
from .objects import Kind

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
COMMON_STATUS: dict[str, Any] = {
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
STATUS: dict[Kind, dict[str, Any]] = {
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
