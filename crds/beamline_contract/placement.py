"""The parts of a workload that say where, how many and with which files: bounded excerpts of Kubernetes' own
words.

Each field here means what the field of the same name means in a Pod, Deployment, HorizontalPodAutoscaler or
PodDisruptionBudget. What is left out is left out on purpose: host paths, privileges, and whatever a namespace
with Pod Security "restricted" refuses.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from .model import Model, Rule, map_as_the_api_server_reads
from .scalars import LabelKey, LabelValue, PodShare, Quantity, ResourceName

LabelMap = Annotated[
    dict[LabelKey, LabelValue], Field(max_length=32), BeforeValidator(map_as_the_api_server_reads)
]
AnnotationMap = Annotated[
    dict[LabelKey, Annotated[str, StringConstraints(max_length=4096)]],
    Field(max_length=32),
    BeforeValidator(map_as_the_api_server_reads),
]


class VolumeSource(Model):
    """A Secret or ConfigMap of the same namespace, as files."""

    name: ResourceName
    optional: bool | None = None


class EmptyDir(Model):
    """Scratch space that lives as long as the pod."""

    size_limit: Quantity = "64Mi"
    medium: Literal["Memory"] | None = None


class Volume(Model):
    """Files below ``mountPath``: exactly one of configMap, secret and emptyDir."""

    name: Annotated[
        str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    ]
    mount_path: Annotated[
        str, StringConstraints(min_length=2, max_length=512, pattern=r"^/[A-Za-z0-9_.][A-Za-z0-9_./-]*$")
    ]
    config_map: VolumeSource | None = None
    secret: VolumeSource | None = None
    empty_dir: EmptyDir | None = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.configMap), has(self.secret), has(self.emptyDir)].filter(x, x).size() == 1",
            message="exactly one of configMap, secret and emptyDir must be set",
            field="",
            holds=lambda self, _: (
                sum(source is not None for source in (self.config_map, self.secret, self.empty_dir)) == 1
            ),
        ),
        Rule(
            cel="self.name != 'tmp' && self.mountPath != '/tmp'",
            message="the volume tmp at /tmp is Beamline's own: use another name and path",
            field="",
            holds=lambda self, _: self.name != "tmp" and self.mount_path != "/tmp",  # noqa: S108 -- a path inside the container
        ),
    )


class Autoscaling(Model):
    """A HorizontalPodAutoscaler on the workload; ``replicas`` is left alone while there is one."""

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    cpu_percent: Annotated[int, Field(ge=1, le=1000)] = 80
    """Average CPU use to hold, in percent of what is requested."""
    memory_percent: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Average memory use to hold as well, in percent of what is requested."""
    scale_down_stabilization_seconds: Annotated[int, Field(ge=0, le=3600)] = 300
    """How long a lower need must last before pods go."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.maxReplicas >= self.minReplicas",
            message="maxReplicas must be at least minReplicas",
            field="maxReplicas",
            holds=lambda self, _: self.max_replicas >= self.min_replicas,
        ),
    )


class Disruption(Model):
    """A PodDisruptionBudget on the workload."""

    max_unavailable: PodShare | None = None
    """How many pods a drain of nodes may take away at a time. Default: 1, without minAvailable."""
    min_available: PodShare | None = None
    """How many pods a drain of nodes must leave."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.maxUnavailable) || !has(self.minAvailable)",
            message="maxUnavailable and minAvailable exclude each other",
            field="minAvailable",
            holds=lambda self, _: self.max_unavailable is None or self.min_available is None,
        ),
    )


class Toleration(Model):
    """A taint that the pods put up with."""

    key: LabelKey | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.operator == 'Exists' ? !has(self.value) : has(self.key)",
            message="operator Exists takes no value, and Equal needs a key",
            field="operator",
            holds=lambda self, _: self.value is None if self.operator == "Exists" else self.key is not None,
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="tolerationSeconds belongs to the effect NoExecute",
            field="tolerationSeconds",
            holds=lambda self, _: self.toleration_seconds is None or self.effect == "NoExecute",
        ),
    )


class NodeRequirement(Model):
    """What a node's labels must say."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = "In"
    values: Annotated[tuple[LabelValue, ...], Field(strict=False, max_length=32)] = ()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            message="values go with the operators In and NotIn, and with no other",
            field="values",
            holds=lambda self, _: (self.operator in {"In", "NotIn"}) == bool(self.values),
        ),
    )


class Apart(Model):
    """Keeps the workload's own pods away from each other."""

    topology_key: LabelKey = "kubernetes.io/hostname"
    required: bool = False
    """True leaves a pod pending rather than beside another one."""


class Affinity(Model):
    """Which nodes may run the pods, and how the pods stand to each other."""

    nodes: Annotated[tuple[NodeRequirement, ...], Field(strict=False, max_length=8)] = ()
    """All of them must hold."""
    apart: Apart | None = None


class TopologySpread(Model):
    """How evenly the workload's pods are spread over the values of a node label."""

    topology_key: LabelKey
    max_skew: Annotated[int, Field(ge=1, le=1000)] = 1
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "ScheduleAnyway"


_NONE: Final[frozenset[int | str]] = frozenset({0, "0%"})


class UpdateStrategy(Model):
    """How new pods replace old ones. Default: one more at a time, none less."""

    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    max_unavailable: PodShare | None = None
    max_surge: PodShare | None = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.type == 'RollingUpdate' || !(has(self.maxUnavailable) || has(self.maxSurge))",
            message="maxUnavailable and maxSurge belong to RollingUpdate only",
            field="type",
            holds=lambda self, _: (
                self.type == "RollingUpdate" or (self.max_unavailable is None and self.max_surge is None)
            ),
        ),
        Rule(
            cel="!has(self.maxSurge) || !(self.maxSurge == 0 || self.maxSurge == '0%') || "
            "(has(self.maxUnavailable) && !(self.maxUnavailable == 0 || self.maxUnavailable == '0%'))",
            message="maxSurge 0 needs a maxUnavailable above 0, or nothing could ever be replaced",
            field="maxSurge",
            holds=lambda self, _: self.max_surge not in _NONE or self.max_unavailable not in {*_NONE, None},
        ),
    )
