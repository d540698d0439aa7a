"""Names: API group, ids, subjects, queue groups, headers.

An Extension's *id* is its object name with ``-`` replaced by ``_`` (``openai-gpt4`` serves the id
``openai_gpt4``). A *subject* is where an extension listens on NATS. Subjects are checked strictly, in the
CRD, in the operator and in the router, because a NATS client publishes whatever it is given: wildcards,
``$SYS`` and, before nats-py 2.16, CR and LF.
"""

from __future__ import annotations

import re
from typing import Final, Literal

GROUP: Final = "beamline.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "beamline"
FINALIZER: Final = "beamline.io/registry"
FIELD_MANAGER: Final = "beamline-operator"
ADMIN_FIELD_MANAGER: Final = "beamline-admin"
CHANGED_BY: Final = f"{GROUP}/changed-by"
"""Annotation that the admin API writes with each change: who asked for it, and in which request."""
DELETED_BY: Final = f"{GROUP}/deleted-by"
"""The same, written just before it deletes the object."""
MANAGED_BY: Final = "beamline"

ExtensionType = Literal["pre", "validator", "provider", "post"]
EXTENSION_TYPES: Final[tuple[ExtensionType, ...]] = ("pre", "validator", "provider", "post")

Action = Literal["extension_pre", "extension_validator", "select_provider", "extension_post"]
TYPE_OF_ACTION: Final[dict[str, ExtensionType]] = {
    "extension_pre": "pre",
    "extension_validator": "validator",
    "select_provider": "provider",
    "extension_post": "post",
}

# Object names: a DNS label, because the Service, the Deployment and the NATS subject token are made from it.
NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
NAMESPACE_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SUBJECT_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){1,15}$"
SUBJECT_MAX_LENGTH: Final = 255
TENANT_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,128}$"
MODEL_PATTERN: Final = r"^[A-Za-z0-9._:/-]{1,256}$"

# Subjects that belong to Beamline itself; an extension that listened there would intercept requests or hints.
RESERVED_SUBJECT_PREFIXES: Final = ("beamline.router.", "beamline.registry.", "beamline.operator.", "_INBOX.")

SUBJECT_INVOKE: Final = "beamline.router.v1.invoke"
SUBJECT_ROUTER_STATUS: Final = "beamline.router.v1.status"
SUBJECT_ROUTER_HEALTH: Final = "beamline.router.v1.health"
SUBJECT_ROUTER_PROBE: Final = "beamline.router.v1.probe"
"""A message here asks every router to publish its status now: a new leader need not wait."""
SUBJECT_ROUTER_ADMIN: Final = "beamline.router.v1.admin"
"""Before a dot and a verb of :data:`ADMIN_VERBS`: every router answers. A subject each, so that NATS' own
permissions can allow looking without allowing to change."""
ADMIN_VERBS: Final = ("status", "explain", "isolate", "reset", "traffic", "recent", "trace", "watch")
SUBJECT_ROUTER_TRAIL: Final = "beamline.router.v1.trail"
"""Routers publish trails of requests here, without content, while somebody watches (the verb ``watch``)."""
SUBJECT_ROUTER_TRAIL_CONTENT: Final = "beamline.router.v1.trail.content"
"""Prompts and answers of watched requests: only where the router's own switch allows it. A subject of its
own, so that NATS' permissions can keep it from those who may watch."""
REQUEST_ID_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,128}$"
SUBJECT_REGISTRY_CHANGED: Final = "beamline.registry.v1.changed"
SUBJECT_OPERATOR_ACT: Final = "beamline.operator.v1.act"
"""The operator's leader notes here, in the audit log, what somebody is about to do to running routers."""
QUEUE_ROUTER: Final = "beamline-router"

HEADER_DEADLINE_MS: Final = "Beamline-Deadline-Ms"
"""Milliseconds that remain of the request's deadline when the message is sent. Survives clock skew."""
HEADER_DEADLINE_AT: Final = "Beamline-Deadline-At"
"""The same deadline as Unix time in milliseconds, for work that waited in a buffer."""
HEADER_ATTEMPT: Final = "Beamline-Attempt"
"""1 for the first attempt, 2 for its first retry."""
HEADER_STREAM: Final = "Beamline-Stream"
"""1 asks a provider to stream its answer."""
HEADER_STREAM_WINDOW: Final = "Beamline-Stream-Window"
"""Chunks that the provider may send beyond what was read so far."""
HEADER_STREAM_CONTROL: Final = "Beamline-Stream-Control"
"""On the opening message: the subject where the provider hears what was read, and that it shall stop."""
HEADER_STREAM_SEQUENCE: Final = "Beamline-Stream-Sequence"
"""0 for the opening message, then 1, 2, ..., the last message included."""
HEADER_STREAM_END: Final = "Beamline-Stream-End"
"""1 on the last message: usage and metadata, or the error."""
HEADER_REQUEST_ID: Final = "Beamline-Request-Id"
HEADER_TENANT: Final = "Beamline-Tenant"
"""In a reply: whose request it was; the API key may have decided it."""
HEADER_TRAIL: Final = "Beamline-Trail"
"""1 from a caller: the trail shall stand in the reply's metadata, too."""
HEADER_TRACEPARENT: Final = "traceparent"
HEADER_TRACESTATE: Final = "tracestate"
HEADER_BAGGAGE: Final = "baggage"

CANCEL_SUFFIX: Final = "cancel"
"""What stands behind an extension's subject where every instance hears which calls nobody waits for."""

SUBJECT_STEMS: Final[dict[ExtensionType, str]] = {
    "provider": "beamline.provider",
    "pre": "beamline.ext.pre",
    "validator": "beamline.ext.validate",
    "post": "beamline.ext.post",
}
_SUBJECT_RE: Final = re.compile(SUBJECT_PATTERN)
_MAJOR_VERSION_RE: Final = re.compile(r"^v[0-9]{1,9}$")


def object_id(name: str) -> str:
    """The registry id of an object: ``openai-gpt4`` -> ``openai_gpt4``."""
    return name.replace("-", "_")


def derive_subject(ext_type: ExtensionType, extension_id: str, version: str | None = None) -> str:
    """The subject of an extension that states none: ``beamline.ext.validate.pii_guard.v1``.

    The last token is the version where that is ``v`` and a number, else ``v1``.
    """
    major = version if version is not None and _MAJOR_VERSION_RE.fullmatch(version) else "v1"
    return f"{SUBJECT_STEMS[ext_type]}.{extension_id}.{major}"


def cancel_subject(subject: str) -> str:
    """Where the instances that listen on ``subject`` hear of calls that their caller has given up.

    A message there is ``{"traceparent": ...}``, the trace context of the call: each call is a span of its
    own.
    """
    return f"{subject}.{CANCEL_SUFFIX}"


def subject_fault(subject: str) -> str | None:
    """What is wrong with ``subject`` as the address of an extension, in words, or None."""
    if len(subject) > SUBJECT_MAX_LENGTH:
        return f"must have at most {SUBJECT_MAX_LENGTH} characters, has {len(subject)}"
    if not _SUBJECT_RE.fullmatch(subject) or subject.endswith("\n"):
        return "must be 2 to 16 tokens of letters, digits, '_' and '-', joined by dots, without wildcards"
    for prefix in RESERVED_SUBJECT_PREFIXES:
        if subject.startswith(prefix):
            return f"must not start with {prefix!r}, which is reserved for Beamline itself"
    return None
