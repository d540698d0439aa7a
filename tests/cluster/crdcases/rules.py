"""One wrong object, or one forbidden change, for each CEL rule of the CRDs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from beamline_contract.objects import Kind

from .objects import full, small

Spec = dict[str, Any]


@dataclass(frozen=True)
class RuleCase:
    """``change`` makes the spec of the full object break the rule at ``at`` that begins with ``says``.

    ``field`` is where the fault has to be reported. With ``update`` the full object exists before.
    """

    id: str
    kind: Kind
    at: str
    says: str
    field: str
    change: Callable[[Spec], object]
    update: bool = False
    models_say: str = ""
    """What the models' message begins with, where it is not ``says``."""

    def document(self) -> dict[str, Any]:
        document = full(self.kind)
        self.change(document["spec"])
        return document


def _step(number: int, **fields: Any) -> Callable[[Spec], object]:
    return lambda spec: spec["steps"][number].update(fields)


def _without(number: int, *names: str) -> Callable[[Spec], object]:
    return lambda spec: [spec["steps"][number].pop(name) for name in names]


def _steps(*order: int) -> Callable[[Spec], object]:
    return lambda spec: spec.update(steps=[spec["steps"][number] for number in order])


_REF = {"name": "other"}
_OVERLAP = {"action": "extension_validator", "extensionRef": _REF, "overlap": True}
_NO_SECRET = "a variable whose name speaks of a secret"
_BREAKER = "maxRecoveryTimeoutMs must be at least"
_E, _P = "Extension", "RoutingPolicy"
_ENV, _STEP = "spec.workload.env[]", "spec.steps[]"
_KEYS = "every key must match"
_VOLUME, _TOLERATION = "spec.workload.volumes[]", "spec.workload.tolerations[]"
_NODE = "spec.workload.affinity.nodes[]"

RULE_CASES: list[RuleCase] = [
    RuleCase("type is changed", _E, "spec", "type is immutable", "spec.type",
             lambda s: s.update(type="post"), True),
    RuleCase("subject is changed", _E, "spec", "subject is immutable", "spec.subject",
             lambda s: s.update(subject="acme.pre.full.v2"), True),
    RuleCase("subject is removed", _E, "spec", "subject is immutable", "spec.subject",
             lambda s: s.pop("subject"), True),
    *(
        RuleCase(f"subject under {prefix}", _E, "spec", "subject must not start with", "spec.subject",
                 lambda s, prefix=prefix: s.update(subject=f"{prefix}x"))
        for prefix in ("beamline.router.", "beamline.registry.", "beamline.operator.", "_INBOX.")
    ),
    RuleCase("fallback mode without a reference", _E, "spec", "failureMode fallback and fallbackRef",
             "spec.fallbackRef",
             lambda s: s.pop("fallbackRef")),
    RuleCase("reference without the fallback mode", _E, "spec", "failureMode fallback and fallbackRef",
             "spec.fallbackRef", lambda s: s.update(failureMode="open")),
    RuleCase("canary that is no version", _E, "spec", "a canary is a version", "spec.canary",
             lambda spec: spec.pop("versionOf")),
    RuleCase("canary whose weights do not grow", _E, "spec.canary", "the weights of the steps must grow",
             "spec.canary.steps", lambda spec: spec["canary"]["steps"][0].update(weight=50)),
    RuleCase("two bounds of a disruption", _E, "spec.workload.disruption", "maxUnavailable and minAvailable",
             "spec.workload.disruption.minAvailable",
             lambda spec: spec["workload"]["disruption"].update(minAvailable=1)),
    RuleCase("version of another that has no name", _E, "spec", "version is required with versionOf",
             "spec.version", lambda s: s.pop("version")),
    RuleCase("breaker whose cap is below its first pause", _E, "spec.circuitBreaker", _BREAKER,
             "spec.circuitBreaker.maxRecoveryTimeoutMs",
             lambda s: s["circuitBreaker"].update(maxRecoveryTimeoutMs=999)),
    RuleCase("variable with neither value nor source", _E, _ENV, "exactly one of value and valueFrom",
             "spec.workload.env[0]", lambda s: s["workload"]["env"][0].pop("value")),
    RuleCase("variable with value and source", _E, _ENV, "exactly one of value and valueFrom",
             "spec.workload.env[1]", lambda s: s["workload"]["env"][1].update(value="")),
    *(
        RuleCase(f"a secret in the open as {name}", _E, _ENV, _NO_SECRET, "spec.workload.env[0].value",
                 lambda s, name=name: s["workload"]["env"][0].update(name=name))
        for name in ("OPENAI_API_KEY", "openai_apikey", "Db_Password", "GH_TOKEN", "clientSecret",
                     "CREDENTIALS", "PGPASSWD")
    ),
    RuleCase("source that names nothing", _E, f"{_ENV}.valueFrom", "exactly one of secretKeyRef",
             "spec.workload.env[3].valueFrom",
             lambda s: s["workload"]["env"][3]["valueFrom"].pop("fieldRef")),
    RuleCase("source that names two", _E, f"{_ENV}.valueFrom", "exactly one of secretKeyRef",
             "spec.workload.env[3].valueFrom",
             lambda s: s["workload"]["env"][3]["valueFrom"].update(secretKeyRef={"name": "a", "key": "b"})),
    RuleCase("envFrom that names nothing", _E, "spec.workload.envFrom[]", "exactly one of secretRef",
             "spec.workload.envFrom[0]", lambda s: s["workload"]["envFrom"][0].pop("secretRef")),
    RuleCase("envFrom that names two", _E, "spec.workload.envFrom[]", "exactly one of secretRef",
             "spec.workload.envFrom[0]", lambda s: s["workload"]["envFrom"][0].update(configMapRef=_REF)),
    *(
        RuleCase(f"{name} is overridden", _E, "spec.workload", "NATS_SUBJECT, NATS_QUEUE_GROUP",
             "spec.workload.env",
                 lambda s, name=name: s["workload"]["env"][0].update(name=name))
        for name in ("NATS_SUBJECT", "NATS_QUEUE_GROUP", "BEAMLINE_EXTENSION_ID",
             "BEAMLINE_EXTENSION_TYPE", "BEAMLINE_CONFIG")
    ),
    *(
        RuleCase(f"{field} with a key that is {note}", _E, f"spec.workload.{field}", _KEYS,
                 f"spec.workload.{field}",
                 lambda s, field=field, key=key: s["workload"].update({field: {key: "x"}}),
                 models_say="key string should")
        for field in ("nodeSelector", "podLabels", "podAnnotations")
        for key, note in (("-x", "no label key"), ("", "empty"), ("x" * 254, "too long"))
    ),
    RuleCase("volume from nowhere", _E, _VOLUME, "exactly one of configMap, secret",
             "spec.workload.volumes[0]", lambda s: s["workload"]["volumes"][0].pop("configMap")),
    RuleCase("volume from two sources", _E, _VOLUME, "exactly one of configMap, secret",
             "spec.workload.volumes[0]", lambda s: s["workload"]["volumes"][0].update(emptyDir={})),
    RuleCase("volume with the name of ours", _E, _VOLUME, "the volume tmp at /tmp",
             "spec.workload.volumes[0]", lambda s: s["workload"]["volumes"][0].update(name="tmp")),
    RuleCase("volume at the place of ours", _E, _VOLUME, "the volume tmp at /tmp",
             "spec.workload.volumes[0]", lambda s: s["workload"]["volumes"][0].update(mountPath="/tmp")),
    *(
        RuleCase(f"two volumes with one {field}", _E, "spec.workload", "volumes must differ",
                 "spec.workload.volumes",
                 lambda s, field=field: s["workload"]["volumes"][0].update(
                     {field: s["workload"]["volumes"][1][field]}))
        for field in ("name", "mountPath")
    ),
    *(
        RuleCase(f"pod label {key}", _E, "spec.workload", "labels under beamline.io/",
                 "spec.workload.podLabels",
                 lambda s, key=key: s["workload"]["podLabels"].update({key: "x"}))
        for key in ("beamline.io/extension-id", "app.kubernetes.io/instance")
    ),
    *(
        RuleCase(f"pod annotation {key}", _E, "spec.workload", "annotations under beamline.io/",
                 "spec.workload.podAnnotations",
                 lambda s, key=key: s["workload"]["podAnnotations"].update({key: "unconfined"}))
        for key in ("beamline.io/pod-hash", "container.apparmor.security.beta.kubernetes.io/extension",
                    "seccomp.security.alpha.kubernetes.io/pod")
    ),
    RuleCase("autoscaling with its bounds swapped", _E, "spec.workload.autoscaling",
             "maxReplicas must be at least", "spec.workload.autoscaling.maxReplicas",
             lambda s: s["workload"]["autoscaling"].update(maxReplicas=1)),
    RuleCase("toleration of anything with a value", _E, _TOLERATION, "operator Exists takes no value",
             "spec.workload.tolerations[1].operator",
             lambda s: s["workload"]["tolerations"][1].update(value="x")),
    RuleCase("toleration of an equal nothing", _E, _TOLERATION, "operator Exists takes no value",
             "spec.workload.tolerations[0].operator", lambda s: s["workload"]["tolerations"][0].pop("key")),
    RuleCase("toleration with a time but without NoExecute", _E, _TOLERATION, "tolerationSeconds belongs",
             "spec.workload.tolerations[0].tolerationSeconds",
             lambda s: s["workload"]["tolerations"][0].update(effect="NoSchedule")),
    RuleCase("node that is in no list", _E, _NODE, "values go with the operators",
             "spec.workload.affinity.nodes[0].values",
             lambda s: s["workload"]["affinity"]["nodes"][0].pop("values")),
    RuleCase("node that exists with values", _E, _NODE, "values go with the operators",
             "spec.workload.affinity.nodes[0].values",
             lambda s: s["workload"]["affinity"]["nodes"][0].update(operator="Exists")),
    RuleCase("recreate with a surge", _E, "spec.workload.updateStrategy", "maxUnavailable and maxSurge",
             "spec.workload.updateStrategy.type",
             lambda s: s["workload"].update(updateStrategy={"type": "Recreate", "maxSurge": 1})),
    *(
        RuleCase(f"an update that can replace nothing: {chosen}", _E, "spec.workload.updateStrategy",
                 "maxSurge 0 needs", "spec.workload.updateStrategy.maxSurge",
                 lambda s, chosen=chosen: s["workload"].update(updateStrategy=chosen))
        for chosen in ({"maxSurge": 0}, {"maxSurge": "0%", "maxUnavailable": 0},
                       {"maxSurge": 0, "maxUnavailable": "0%"})
    ),
    RuleCase("header name in capitals", _P, "spec.match.headers", _KEYS, "spec.match.headers",
             lambda s: s["match"].update(headers={"X-Team": "red"}), models_say="key string should"),
    RuleCase("header name that is empty", _P, "spec.match.headers", _KEYS, "spec.match.headers",
             lambda s: s["match"].update(headers={"": "red"}), models_say="key string should"),
    RuleCase("header name that is too long", _P, "spec.match.headers", _KEYS, "spec.match.headers",
             lambda s: s["match"].update(headers={"x" * 129: "red"}), models_say="key string should"),
    RuleCase("header name with a line break at its end", _P, "spec.match.headers", _KEYS,
             "spec.match.headers",
             lambda s: s["match"].update(headers={"x-team\n": "red"}), models_say="key string should"),
    RuleCase("step without its extension", _P, _STEP, "extensionRef is required",
             "spec.steps[1].extensionRef",
             _without(1, "extensionRef")),
    RuleCase("select_provider with an extension", _P, _STEP, "extensionRef is required",
             "spec.steps[2].extensionRef", _step(2, extensionRef=_REF)),
    RuleCase("select_provider without providers", _P, _STEP, "providers must have at least one",
             "spec.steps[2].providers", _without(2, "providers")),
    RuleCase("select_provider with an empty list of providers", _P, _STEP, "providers must have at least one",
             "spec.steps[2].providers", _step(2, providers=[])),
    RuleCase("providers on another step", _P, _STEP, "providers must have at least one",
             "spec.steps[1].providers", _step(1, providers=[{"extensionRef": _REF}])),
    RuleCase("strategy on another step", _P, _STEP, "strategy, stickyKey, canary and fallback",
             "spec.steps[1].strategy", _step(1, strategy="ordered")),
    RuleCase("sticky key on another step", _P, _STEP, "strategy, stickyKey, canary and fallback",
             "spec.steps[1].strategy", _step(1, stickyKey="tenant")),
    RuleCase("provider fallback on another step", _P, _STEP, "strategy, stickyKey, canary and fallback",
             "spec.steps[1].strategy", _step(1, fallback=[{"extensionRef": _REF}])),
    RuleCase("score with another strategy", _P, _STEP, "score belongs to strategy score only",
             "spec.steps[2].score", _step(2, strategy="weighted")),
    RuleCase("a score that nothing counts for", _P, f"{_STEP}.score", "at least one of quality",
             "spec.steps[2].score.quality", _step(2, score={"quality": 0, "cost": 0, "latency": 0})),
    RuleCase("canary on another step", _P, _STEP, "strategy, stickyKey, canary and fallback",
             "spec.steps[1].strategy", _step(1, canary={"extensionRef": _REF})),
    *(
        RuleCase(f"overlap on {what}", _P, _STEP, "overlap belongs to an enforced",
                 f"spec.steps[{number}].overlap", _step(number, overlap=True))
        for what, number in (("a pre step", 0), ("a validator of a group", 1), ("select_provider", 2))
    ),
    RuleCase("overlap on a validator in shadow mode", _P, _STEP, "overlap belongs to an enforced",
             "spec.steps[1].overlap",
             lambda s: s["steps"][1].update(overlap=True, mode="shadow") or s["steps"][1].pop("group")),
    RuleCase("group on a pre step", _P, _STEP, "group belongs to extension_validator", "spec.steps[0].group",
             _step(0, group="checks")),
    RuleCase("shadow on select_provider", _P, _STEP, "mode shadow is not possible", "spec.steps[2].mode",
             _step(2, mode="shadow")),
    RuleCase("fallback mode of a step without a reference", _P, _STEP, "failureMode fallback and fallbackRef",
             "spec.steps[0].fallbackRef", _without(0, "fallbackRef")),
    RuleCase("open select_provider", _P, _STEP, "failureMode fallback and fallbackRef",
             "spec.steps[2].fallbackRef", _step(2, failureMode="open")),
    RuleCase("select_provider with a fallback reference", _P, _STEP, "failureMode fallback and fallbackRef",
             "spec.steps[2].fallbackRef", _step(2, fallbackRef=_REF)),
    RuleCase("providers that all weigh nothing", _P, _STEP, "at least one provider must have a weight",
             "spec.steps[2].providers", _step(2, providers=[{"extensionRef": _REF, "weight": 0}])),
    RuleCase("breaker of a step whose cap is below its first pause", _P, f"{_STEP}.circuitBreaker", _BREAKER,
             "spec.steps[0].circuitBreaker.maxRecoveryTimeoutMs",
             lambda s: s["steps"][0]["circuitBreaker"].update(maxRecoveryTimeoutMs=999)),
    RuleCase("retry budget whose threshold is its size", _P, "spec.retryBudget", "threshold must be less",
             "spec.retryBudget.threshold", lambda s: s["retryBudget"].update(threshold=20)),
    RuleCase("retry budget of a step whose threshold is its size", _P, f"{_STEP}.retryBudget",
             "threshold must be less", "spec.steps[0].retryBudget.threshold",
             lambda s: s["steps"][0]["retryBudget"].update(threshold=20)),
    RuleCase("retry budget of an extension whose threshold is its size", _E, "spec.retryBudget",
             "threshold must be less", "spec.retryBudget.threshold",
             lambda s: s["retryBudget"].update(threshold=20)),
    RuleCase("overlap before a validator without it", _P, "spec", "validators with overlap must stand",
             "spec.steps", lambda s: s["steps"].insert(0, _OVERLAP)),
    RuleCase("overlap behind fourteen others and before a pre step", _P, "spec",
             "validators with overlap must stand", "spec.steps",
             lambda s: s.update(steps=[*[s["steps"][1]] * 12, _OVERLAP, *s["steps"][:1], s["steps"][2]])),
    RuleCase("no select_provider", _P, "spec", "steps must hold exactly one select_provider",
             "spec.steps", _steps(0, 1)),
    RuleCase("two select_provider", _P, "spec", "steps must hold exactly one select_provider", "spec.steps",
             _steps(0, 2, 2)),
    RuleCase("validator behind the provider", _P, "spec",
             "extension_pre and extension_validator must stand before", "spec.steps", _steps(0, 2, 1)),
    RuleCase("pre step behind a post step", _P, "spec",
             "extension_pre and extension_validator must stand before", "spec.steps", _steps(2, 3, 0)),
    RuleCase("post step before the provider", _P, "spec", "extension_post must stand after", "spec.steps",
             _steps(0, 3, 2)),
    RuleCase("post step before the provider as the last two of sixteen", _P, "spec",
             "extension_post must stand after", "spec.steps", _steps(*[0] * 14, 3, 2)),
]  # fmt: skip

ACCEPTED: dict[str, dict[str, Any]] = {
    "an extension with every field": full("Extension"),
    "a policy with every field": full("RoutingPolicy"),
    "an extension with nothing but its type": small("Extension"),
    "a policy with nothing but its provider": small("RoutingPolicy"),
    "null for a field with a default": small("Extension", timeoutMs=None, circuitBreaker=None),
    "null for a field without a default": small("Extension", subject=None, config=None, workload=None),
    "null for an entry of a map": small("RoutingPolicy", match={"headers": {"x-a": None, "x-b": "1"}}),
    "null and a whole number with a point as resources": small(
        "Extension", workload={"image": "a", "resources": {"requests": {"cpu": 1.0, "memory": None}}}
    ),
    "a whole number written with a point": small("Extension", timeoutMs=100.0),
    "an integer where a fraction is possible": small("Extension", circuitBreaker={"minFailureRatio": 0}),
    "both ends of a range": small("Extension", timeoutMs=1, retry=5, weight=0, concurrency=100_000),
    "empty lists written down": small("Extension", allowedNamespaces=[],
             workload={"image": "a", "args": [], "env": []}),
    "one resource of the three": small(
        "Extension",
        workload={"image": "a", "resources": {"requests": {"cpu": 2}, "limits": {"memory": "1Gi"}}},
    ),
    "quantities in every spelling": small(
        "Extension", workload={"image": "a", "resources": {"requests": {"cpu": "0.5", "memory": "1e3"},
                                                           "limits": {"cpu": ".5", "memory": "1.E6"}}}
    ),
    "an empty value of a variable that could hold a secret": small(
        "Extension", workload={"image": "a", "env": [{"name": "API_TOKEN", "value": ""}]}
    ),
    "overlapping validators before the provider": small(
        "RoutingPolicy",
        steps=[_OVERLAP, _OVERLAP, {"action": "select_provider", "providers": [{"extensionRef": _REF}]}],
    ),
    "a retry budget and a canary with nothing but what is required": small(
        "RoutingPolicy", retryBudget={},
        steps=[{"action": "select_provider", "providers": [{"extensionRef": _REF}],
                "canary": {"extensionRef": _REF}}],
    ),
    "a toleration of every taint, and shares of pods in both spellings": small(
        "Extension",
        workload={"image": "a", "tolerations": [{"operator": "Exists"}], "disruption": {},
                  "updateStrategy": {"maxSurge": 0, "maxUnavailable": "50%"}},
    ),
    "an autoscaler with nothing but its maximum": small(
        "Extension", workload={"image": "a", "autoscaling": {"maxReplicas": 3}}
    ),
    "an empty match": small("RoutingPolicy", match={}),
    "a header whose value is empty": small("RoutingPolicy", match={"headers": {"x-a": ""}}),
    "an empty list of fallbacks on a step that can't have any": small(
        "RoutingPolicy",
        steps=[{"action": "extension_pre", "extensionRef": {"name": "a"}, "fallback": [], "providers": []},
               {"action": "select_provider", "providers": [{"extensionRef": {"name": "b"}}]}],
    ),
}  # fmt: skip
