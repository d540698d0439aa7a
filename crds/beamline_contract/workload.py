"""What runs an extension: image, environment, resources, probes, and how it is spread over a cluster.

Every bound and default here is the CRD's as well (:mod:`.crd` generates it). Defaults come from contract.md's
"What a workload gets". What says where and how many is in :mod:`.placement`.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from .model import Model, Rule, map_as_the_api_server_reads
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
from .scalars import QUANTITY_SCHEMA, EnvName, Key, Quantity, ResourceName

_SECRET_WORDS = r"(?i)(API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)"  # noqa: S105 -- names, not a secret


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
    rollback: Literal["auto", "manual"] = "manual"
    """``auto``: where a rollout fails, the last revision that was ready runs again until the spec changes."""
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
