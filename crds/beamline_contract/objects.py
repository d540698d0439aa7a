"""Custom resources as objects: metadata, spec, status, and how a manifest becomes one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from pydantic import ValidationError

from .extension import ExtensionSpec
from .model import Fault, InvalidObjectError, faults_of, faults_of_validation
from .names import (
    ADMIN_FIELD_MANAGER,
    API_VERSION,
    CHANGED_BY,
    DELETED_BY,
    GROUP,
    NAME_PATTERN,
    derive_subject,
    object_id,
    subject_fault,
)
from .policy import RoutingPolicySpec

Kind: TypeAlias = Literal["Extension", "RoutingPolicy"]
KINDS: Final[tuple[Kind, ...]] = ("Extension", "RoutingPolicy")
PLURAL: Final[dict[Kind, str]] = {"Extension": "extensions", "RoutingPolicy": "routingpolicies"}
NAME_RULE: Final = (
    "metadata.name must be a DNS label: lower case letters, digits and '-', starting with a letter, "
    "at most 63"
)
_TOP_LEVEL: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_NAME_RE: Final = re.compile(NAME_PATTERN)


class ObjectKey(NamedTuple):
    """What identifies an object in either world; the key of the reconcile queue."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """The part of Kubernetes metadata that decisions need.

    ``created_at`` is RFC 3339 UTC, so it sorts as text.
    """

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    created_at: str = ""
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    changed_by: str = ""
    """Who made the last change to the spec: the newest field manager in managedFields, or the file; a user of
    the admin API by name.
    """
    request_id: str = ""
    """The request of the admin API that made that change."""
    annotated_by: Mapping[str, str] = field(default_factory=dict)
    """Who set our own annotations, by their names: the newest field manager of each, or the file."""
    deleted_by: str = ""
    deletion_request_id: str = ""
    """Who asked the admin API to delete it, in which request; empty where it was deleted otherwise."""


@dataclass(frozen=True, slots=True)
class Extension:
    """A valid Extension."""

    metadata: ObjectMeta
    spec: ExtensionSpec
    status: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "Extension"

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Extension", self.metadata.namespace, self.metadata.name)

    @property
    def id(self) -> str:
        """Its id in the registry."""
        return object_id(self.metadata.name)

    @property
    def subject(self) -> str:
        """The subject it listens on, stated or derived."""
        return self.spec.subject or derive_subject(self.spec.type, self.id, self.spec.version)


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """A valid RoutingPolicy."""

    metadata: ObjectMeta
    spec: RoutingPolicySpec
    status: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "RoutingPolicy"

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("RoutingPolicy", self.metadata.namespace, self.metadata.name)

    @property
    def id(self) -> str:
        """Its id in the registry."""
        return object_id(self.metadata.name)


BeamlineObject: TypeAlias = Extension | RoutingPolicy


@dataclass(frozen=True, slots=True)
class BrokenObject:
    """An object that exists but breaks its rules: kept so that its status can say so.

    ``spec`` is as written.
    """

    kind: Kind
    metadata: ObjectMeta
    faults: tuple[Fault, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.kind, self.metadata.namespace, self.metadata.name)


def parse_metadata(raw: Mapping[str, Any], default_namespace: str = "default") -> ObjectMeta:
    """Reads a manifest's or an API object's ``metadata``.

    Absent fields keep the defaults of :class:`ObjectMeta`.
    """
    managed = [
        entry
        for entry in raw.get("managedFields") or ()
        if not entry.get("subresource") and "f:spec" in (entry.get("fieldsV1") or {"f:spec"})
    ]
    newest: Mapping[str, Any] = max(managed, key=lambda entry: str(entry.get("time") or ""), default={})
    annotations = dict(raw.get("annotations") or {})
    changed_by, request_id = str(newest.get("manager", "")), ""
    if changed_by == ADMIN_FIELD_MANAGER and CHANGED_BY in annotations:
        who, request_id = parse_signature(annotations[CHANGED_BY])
        changed_by = f"{who} ({ADMIN_FIELD_MANAGER})"
    deleted_by, deletion_request_id = parse_signature(annotations.get(DELETED_BY, ""))
    return ObjectMeta(
        name=str(raw.get("name", "")),
        namespace=str(raw.get("namespace") or default_namespace),
        uid=str(raw.get("uid", "")),
        generation=int(raw.get("generation", 1)),
        resource_version=str(raw.get("resourceVersion", "")),
        created_at=str(raw.get("creationTimestamp") or ""),
        deleting=bool(raw.get("deletionTimestamp")),
        finalizers=tuple(raw.get("finalizers") or ()),
        labels=dict(raw.get("labels") or {}),
        annotations=annotations,
        changed_by=changed_by,
        request_id=request_id,
        annotated_by=_annotated_by(raw.get("managedFields") or ()),
        deleted_by=f"{deleted_by} ({ADMIN_FIELD_MANAGER})" if deleted_by else "",
        deletion_request_id=deletion_request_id,
    )


def author_of(meta: ObjectMeta, annotation: str) -> tuple[str, str]:
    """Who set an annotation, and in which request of the admin API: that signs with the request's id, which
    is also the annotation's value.
    """
    value = meta.annotations.get(annotation, "")
    who, request_id = parse_signature(meta.annotations.get(CHANGED_BY, ""))
    if request_id and request_id == value:
        return f"{who} ({ADMIN_FIELD_MANAGER})", request_id
    return meta.annotated_by.get(annotation) or meta.changed_by or "unknown", ""


def _annotated_by(managed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in sorted(managed, key=lambda one: str(one.get("time") or "")):
        fields = ((entry.get("fieldsV1") or {}).get("f:metadata") or {}).get("f:annotations") or {}
        names = (name.removeprefix("f:") for name in fields)
        found |= {name: str(entry.get("manager", "")) for name in names if name.startswith(f"{GROUP}/")}
    return found


def signature(who: str, request_id: str) -> str:
    """The value of :data:`CHANGED_BY` and :data:`DELETED_BY`."""
    return f"{who} request={request_id}"


def parse_signature(text: str) -> tuple[str, str]:
    """(who, request id) of a :func:`signature`; a text that is none is who."""
    who, _, request_id = text.rpartition(" request=")
    return (who, request_id[:64]) if who else (text, "")


def parse_object(
    document: Mapping[str, Any], *, old: BeamlineObject | None = None, default_namespace: str = "default"
) -> BeamlineObject:
    """A manifest, or an object from the API server, as a valid object.

    ``old`` is the version before, for the rules on immutable fields. Raises :class:`InvalidObjectError` with
    every fault at once, each with the path of its field.
    """
    kind = document.get("kind")
    faults: list[Fault] = []
    if document.get("apiVersion") != API_VERSION:
        faults.append(Fault("apiVersion", f"must be {API_VERSION}, got {document.get('apiVersion')!r}"))
    if kind not in KINDS:
        faults.append(Fault("kind", f"must be one of {', '.join(KINDS)}, got {kind!r}"))
        raise InvalidObjectError(tuple(faults))
    faults.extend(
        Fault(str(name), "is not a field of this object") for name in document if name not in _TOP_LEVEL
    )
    raw_metadata = document.get("metadata")
    if not isinstance(raw_metadata, Mapping):
        raise InvalidObjectError((*faults, Fault("metadata", "is required")))
    metadata = parse_metadata(raw_metadata, default_namespace)
    if not _NAME_RE.fullmatch(metadata.name):
        faults.append(Fault("metadata.name", f"{NAME_RULE}, got {metadata.name[:80]!r}"))
    raw_spec = document.get("spec")
    if not isinstance(raw_spec, Mapping):
        raise InvalidObjectError((*faults, Fault("spec", "is required")))
    status = document.get("status") or {}
    model = ExtensionSpec if kind == "Extension" else RoutingPolicySpec
    try:
        spec = model.model_validate(dict(raw_spec), by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidObjectError((*faults, *faults_of_validation(error, "spec"))) from error
    faults.extend(faults_of(spec, old.spec if old is not None else None, "spec"))
    if faults:
        raise InvalidObjectError(tuple(faults))
    if isinstance(spec, RoutingPolicySpec):
        return RoutingPolicy(metadata, spec, status)
    parsed = Extension(metadata, spec, status)
    if fault := subject_fault(parsed.subject):
        raise InvalidObjectError((Fault("spec.subject", fault),))
    return parsed
