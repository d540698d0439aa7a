"""The ``Extension`` resource: a provider, a guard or a transformer that the router can call.

Every bound and default here is the CRD's as well (:mod:`.crd` generates it). Defaults come from contract.md's
"Time and retry" and "What a workload gets"; docs/decisions says why where we chose.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from .model import FreeForm, Model, Rule, map_as_the_api_server_reads
from .names import RESERVED_SUBJECT_PREFIXES, ExtensionType
from .placement import (
    Affinity,
    AnnotationMap,
    Autoscaling,
    Disruption,
    LabelMap,
    Toleration,
    TopologySpread,
    UpdateStrategy,
    Volume,
)
from .scalars import (
    QUANTITY_SCHEMA,
    EnvName,
    Key,
    Namespace,
    ObjectName,
    Quantity,
    ResourceName,
    Retry,
    Subject,
    TimeoutMs,
)

FailureMode = Literal["open", "closed", "fallback"]

_SECRET_WORDS = r"(?i)(API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)"  # noqa: S105 -- names, not a secret


StickyKey = Annotated[
    str, StringConstraints(min_length=1, max_length=160, pattern=r"^(tenant|header:[a-z0-9-]{1,128})$")
]
"""What a choice is hashed by: ``tenant``, or ``header:NAME`` (the tenant where the header is absent)."""


class ExtensionRef(Model):
    """Names an Extension, of the same namespace unless ``namespace`` says otherwise."""

    name: ObjectName
    namespace: Namespace | None = None


class SlowCall(Model):
    """When calls count as slow, and how many of them open the breaker."""

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of slow calls among the calls of the window that opens the breaker."""
    min_calls: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Calls in the window below which slowness opens nothing."""
    threshold_ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    """A call is slow from this share of its step timeout on."""


class CircuitBreaker(Model):
    """Breaker of one extension in one router. Defaults: architecture.md, "Rules of the pipeline"."""

    failure_threshold: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Failures within the window that may open the breaker."""
    monitoring_period_ms: Annotated[int, Field(ge=1_000, le=600_000)] = 60_000
    """Length of the sliding window, milliseconds."""
    min_failure_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of failed calls in the window that must be reached too; 0 gives the plain count rule."""
    recovery_timeout_ms: Annotated[int, Field(ge=100, le=600_000)] = 30_000
    """How long the breaker stays open the first time; doubles each time it opens again."""
    max_recovery_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 300_000
    """Upper bound of that doubling."""
    half_open_successes: Annotated[int, Field(ge=1, le=100)] = 3
    """Successful probes in a row that close the breaker."""
    slow_call: SlowCall = SlowCall()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.maxRecoveryTimeoutMs >= self.recoveryTimeoutMs",
            message="maxRecoveryTimeoutMs must be at least recoveryTimeoutMs",
            field="maxRecoveryTimeoutMs",
            holds=lambda self, _: self.max_recovery_timeout_ms >= self.recovery_timeout_ms,
        ),
    )


class KeyRef(Model):
    """One key of a Secret or ConfigMap of the same namespace."""

    name: ResourceName
    key: Key
    optional: bool | None = None


class FieldRef(Model):
    """A field of the pod, by the downward API."""

    field_path: Annotated[str, StringConstraints(min_length=1, max_length=128)]


class EnvSource(Model):
    """Where the value of a variable comes from; exactly one of the three."""

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)]"
            ".filter(x, x).size() == 1",
            message="exactly one of secretKeyRef, configMapKeyRef and fieldRef must be set",
            field="",
            holds=lambda self, _: (
                sum(
                    source is not None
                    for source in (self.secret_key_ref, self.config_map_key_ref, self.field_ref)
                )
                == 1
            ),
        ),
    )


class EnvVar(Model):
    """An environment variable of the workload. Secrets only by ``valueFrom.secretKeyRef``."""

    name: EnvName
    value: Annotated[str, StringConstraints(max_length=4096)] | None = None
    value_from: EnvSource | None = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.value) != has(self.valueFrom)",
            message="exactly one of value and valueFrom must be set",
            field="",
            holds=lambda self, _: (self.value is None) != (self.value_from is None),
        ),
        Rule(
            cel=f"!has(self.value) || self.value == '' || !self.name.matches('{_SECRET_WORDS}')",
            message="a variable whose name speaks of a secret must use valueFrom.secretKeyRef, never value",
            field="value",
            holds=lambda self, _: not self.value or not re.search(_SECRET_WORDS, self.name),
        ),
    )


class LocalRef(Model):
    """Names a Secret or ConfigMap of the same namespace."""

    name: ResourceName
    optional: bool | None = None


class EnvFrom(Model):
    """All keys of a Secret or ConfigMap as variables."""

    prefix: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = (
        None
    )
    secret_ref: LocalRef | None = None
    config_map_ref: LocalRef | None = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.secretRef) != has(self.configMapRef)",
            message="exactly one of secretRef and configMapRef must be set",
            field="",
            holds=lambda self, _: (self.secret_ref is None) != (self.config_map_ref is None),
        ),
    )


_ComputeResource = Literal["cpu", "memory", "ephemeral-storage"]
ResourceMap = Annotated[
    dict[_ComputeResource, Quantity],
    BeforeValidator(lambda data: map_as_the_api_server_reads(data, get_args(_ComputeResource))),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {name: dict(QUANTITY_SCHEMA) for name in get_args(_ComputeResource)},
        }
    ),
]


class Resources(Model):
    """Compute resources of one replica. Defaults: contract.md, "What a workload gets"."""

    requests: ResourceMap = {"cpu": "100m", "memory": "128Mi"}  # noqa: RUF012 -- pydantic copies it
    limits: ResourceMap = {"cpu": "500m", "memory": "256Mi"}  # noqa: RUF012 -- pydantic copies it


class Probes(Model):
    """Health probes on the ``metrics`` port. Turn them off for a foreign image that does not serve them."""

    enabled: bool = True
    liveness_path: Annotated[str, StringConstraints(max_length=256, pattern=r"^/[!-~]*$")] = "/healthz"
    readiness_path: Annotated[str, StringConstraints(max_length=256, pattern=r"^/[!-~]*$")] = "/readyz"
    port: Annotated[int, Field(ge=1, le=65_535)] = 9090


RESERVED_ENV = frozenset(
    {
        "NATS_SUBJECT",
        "NATS_QUEUE_GROUP",
        "BEAMLINE_EXTENSION_ID",
        "BEAMLINE_EXTENSION_TYPE",
        "BEAMLINE_CONFIG",
    }
)
Argument = Annotated[str, StringConstraints(max_length=4096)]


class Workload(Model):
    """What runs the extension: a Deployment in a cluster, on a laptop a process (by ``command``)."""

    image: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[!-~]+$")]
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Annotated[tuple[LocalRef, ...], Field(strict=False, max_length=16)] = ()
    command: Annotated[tuple[Argument, ...], Field(strict=False, max_length=64)] = ()
    args: Annotated[tuple[Argument, ...], Field(strict=False, max_length=64)] = ()
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    env: Annotated[tuple[EnvVar, ...], Field(strict=False, max_length=128)] = ()
    env_from: Annotated[tuple[EnvFrom, ...], Field(strict=False, max_length=32)] = ()
    resources: Resources = Resources()
    probes: Probes = Probes()
    autoscaling: Autoscaling | None = None
    """Scales between two bounds instead of the fixed number of replicas."""
    disruption: Disruption | None = None
    """How many pods a drain of nodes must leave."""
    volumes: Annotated[tuple[Volume, ...], Field(strict=False, max_length=16)] = ()
    node_selector: LabelMap = Field(default_factory=dict)
    tolerations: Annotated[tuple[Toleration, ...], Field(strict=False, max_length=16)] = ()
    affinity: Affinity | None = None
    topology_spread: Annotated[tuple[TopologySpread, ...], Field(strict=False, max_length=4)] = ()
    priority_class_name: ResourceName | None = None
    service_account_name: ResourceName | None = None
    """An account that exists; default: one of the workload's own, without a token and without rights."""
    update_strategy: UpdateStrategy = UpdateStrategy()
    revision_history_limit: Annotated[int, Field(ge=0, le=100)] = 5
    """Old revisions that stay for a roll-back."""
    progress_deadline_seconds: Annotated[int, Field(ge=10, le=3600)] = 300
    """A rollout without progress for so long has failed."""
    pod_labels: LabelMap = Field(default_factory=dict)
    pod_annotations: AnnotationMap = Field(default_factory=dict)

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.volumes) || self.volumes.all(v, self.volumes.exists_one(w, w.name == v.name) && "
            "self.volumes.exists_one(w, w.mountPath == v.mountPath))",
            message="volumes must differ in name and in mountPath",
            field="volumes",
            holds=lambda self, _: (
                len({v.name for v in self.volumes})
                == len({v.mount_path for v in self.volumes})
                == len(self.volumes)
            ),
        ),
        Rule(
            cel="!has(self.podLabels) || !self.podLabels.exists(k, k.startsWith('beamline.io/') || "
            "k.startsWith('app.kubernetes.io/'))",
            message="labels under beamline.io/ and app.kubernetes.io/ are set by Beamline",
            field="podLabels",
            holds=lambda self, _: (
                not any(key.startswith(("beamline.io/", "app.kubernetes.io/")) for key in self.pod_labels)
            ),
        ),
        Rule(
            cel="!has(self.podAnnotations) || !self.podAnnotations.exists(k, k.startsWith('beamline.io/') || "
            "k.contains('apparmor') || k.contains('seccomp'))",
            message="annotations under beamline.io/ are Beamline's own, and none may loosen AppArmor or "
            "seccomp",
            field="podAnnotations",
            holds=lambda self, _: (
                not any(
                    key.startswith("beamline.io/") or "apparmor" in key or "seccomp" in key
                    for key in self.pod_annotations
                )
            ),
        ),
        Rule(
            cel="!has(self.env) || self.env.all(e, !(e.name in ['NATS_SUBJECT', 'NATS_QUEUE_GROUP', "
            "'BEAMLINE_EXTENSION_ID', 'BEAMLINE_EXTENSION_TYPE', 'BEAMLINE_CONFIG']))",
            message="NATS_SUBJECT, NATS_QUEUE_GROUP, BEAMLINE_EXTENSION_ID, BEAMLINE_EXTENSION_TYPE and "
            "BEAMLINE_CONFIG "
            "are set by Beamline and can't be overridden",
            field="env",
            holds=lambda self, _: not {e.name for e in self.env} & RESERVED_ENV,
        ),
    )


class ExtensionSpec(Model):
    """Desired state of an Extension."""

    type: ExtensionType
    """What the extension does in the pipeline. Immutable."""
    subject: Subject | None = None
    """NATS subject it listens on; derived from type and name where absent. Immutable."""
    timeout_ms: TimeoutMs = 5_000
    """Time for one attempt, milliseconds."""
    retry: Retry = 1
    """Extra attempts on this extension after a retryable error."""
    retry_on_timeout: bool | None = None
    """Whether a timeout is retried. Default: true, but false for providers, whose calls cost money."""
    enabled: bool = True
    """False takes the extension out of every router and its workload to zero."""
    suspend: bool = False
    """True stops reconciling and changes nothing."""
    failure_mode: FailureMode | None = None
    """What a failed step does to the request.

    Default: pre and post ``open``, validator and provider ``closed``.
    """
    fallback_ref: ExtensionRef | None = None
    """The extension that is asked instead, with failureMode ``fallback``."""
    config: FreeForm = Field(default_factory=dict)
    """Sent with every request; its shape is the extension's own."""
    config_schema: FreeForm | None = None
    """JSON Schema that ``config`` must satisfy."""
    metadata: FreeForm = Field(default_factory=dict)
    """Free notes for people and tools; not sent to the extension."""
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Calls that one router keeps in flight to this extension."""
    version: (
        Annotated[
            str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
        ]
        | None
    ) = None
    """Version of this extension; ``v`` and a number also ends a derived subject."""
    version_of: ObjectName | None = None
    """The Extension of the same namespace and type that this one is a version of.

    Steps that name that Extension are divided among it and its enabled versions, by weight.
    """
    weight: Annotated[int, Field(ge=0, le=1_000)] = 100
    """Share of traffic relative to other versions side by side; 0 takes none."""
    sticky_key: StickyKey | None = None
    """On the Extension that has versions: the same key meets the same version. Default: drawn per request."""
    allowed_namespaces: Annotated[tuple[Namespace, ...], Field(strict=False, max_length=64)] = ()
    """Other namespaces whose RoutingPolicies may refer to this Extension."""
    deletion_policy: Literal["Delete", "Retain"] = "Delete"
    """Retain keeps registry row and workload when the object is deleted."""
    workload: Workload | None = None
    """What Beamline runs for it; none for an extension that runs elsewhere."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.type == oldSelf.type",
            message="type is immutable: create another Extension instead",
            field="type",
            holds=lambda self, old: self.type == old.type,
            transition=True,
        ),
        Rule(
            cel="has(self.subject) == has(oldSelf.subject) && "
            "(!has(self.subject) || self.subject == oldSelf.subject)",
            message="subject is immutable: create another Extension instead",
            field="subject",
            holds=lambda self, old: self.subject == old.subject,
            transition=True,
        ),
        Rule(
            cel="!has(self.subject) || !["
            + ", ".join(f"'{prefix}'" for prefix in RESERVED_SUBJECT_PREFIXES)
            + "].exists(p, self.subject.startsWith(p))",
            message="subject must not start with "
            + ", ".join(RESERVED_SUBJECT_PREFIXES)
            + ": reserved for Beamline itself",
            field="subject",
            holds=lambda self, _: (
                self.subject is None or not self.subject.startswith(RESERVED_SUBJECT_PREFIXES)
            ),
        ),
        Rule(
            cel="(has(self.failureMode) && self.failureMode == 'fallback') == has(self.fallbackRef)",
            message="failureMode fallback and fallbackRef go together: set both or neither",
            field="fallbackRef",
            holds=lambda self, _: (self.failure_mode == "fallback") == (self.fallback_ref is not None),
        ),
        Rule(
            cel="!has(self.versionOf) || has(self.version)",
            message="version is required with versionOf: say which version this is",
            field="version",
            holds=lambda self, _: self.version_of is None or self.version is not None,
        ),
    )


def default_failure_mode(ext_type: ExtensionType) -> FailureMode:
    """pre and post ``open``, validator and provider ``closed`` (architecture.md, "Rules of the pipeline")."""
    return "open" if ext_type in {"pre", "post"} else "closed"
