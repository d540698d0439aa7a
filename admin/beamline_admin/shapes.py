"""What the API answers: the schemas of the OpenAPI document.

Values under keys that speak of a secret are masked with the audit log's own rule: a secret belongs into a
Secret, but whoever forgot that must not find it on every screen.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from beamline_contract.projection import ExtensionRecord, PolicyRecord, complexity, effective_failure_mode
from beamline_registry import port
from beamline_registry.changes import masked

from .catalogue import View
from .pipeline import hints_of


class Shape(BaseModel):
    """Base of all answers: the docstrings of fields go into the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)


class ExtensionItem(Shape):
    """An extension in a list."""

    id: str
    type: str
    subject: str
    namespace: str
    name: str
    enabled: bool
    version: str | None
    weight: int
    timeout_ms: int
    retry: int
    failure_mode: str
    generation: int
    revision: int
    """Registry revision at which it last changed."""
    created_at: str

    @classmethod
    def of(cls, record: ExtensionRecord) -> ExtensionItem:
        """The item of a record."""
        return cls.model_validate(_fields(record))


class ExtensionDetail(ExtensionItem):
    """An extension with everything that is known of it. ``spec`` is in the object's spelling, without the
    workload.
    """

    uid: str
    config: dict[str, Any]
    metadata: dict[str, Any]
    spec: dict[str, Any]

    @classmethod
    def of(cls, record: ExtensionRecord) -> ExtensionDetail:
        """The detail of a record."""
        free = {name: masked("", getattr(record, name)) for name in ("config", "metadata", "spec")}
        return cls.model_validate(_fields(record) | free)


class PolicyItem(Shape):
    """A policy in a list."""

    id: str
    namespace: str
    name: str
    priority: int
    deadline_ms: int
    match: dict[str, Any]
    complexity: int
    """steps + 2 x validators in series + 3 x fallbacks + nesting."""
    hints: list[str]
    """What somebody should look at."""
    generation: int
    revision: int
    created_at: str

    @classmethod
    def of(cls, record: PolicyRecord, view: View) -> PolicyItem:
        """The item of a record."""
        return cls.model_validate(_policy_fields(record, view))


class PolicyDetail(PolicyItem):
    """A policy with its steps, as routers read it."""

    uid: str
    policy: dict[str, Any]

    @classmethod
    def of(cls, record: PolicyRecord, view: View) -> PolicyDetail:
        """The detail of a record."""
        return cls.model_validate(_policy_fields(record, view) | {"policy": masked("", record.policy)})


class Measured(Shape):
    """Health of an extension that was called within the last five minutes. Sums are over all routers."""

    status: Literal["measured"] = "measured"
    score: float
    """success / (success + failure) x 100 over the last five minutes."""
    window_success: int
    window_failure: int
    success_count: int
    failure_count: int
    avg_latency_ms: float
    last_success: str | None
    last_failure: str | None


class NoData(Shape):
    """Nobody called the extension within the last five minutes, so nothing can be said."""

    status: Literal["no_data"] = "no_data"


HealthAnswer = Annotated[Measured | NoData, Field(discriminator="status")]


HealthWord = Literal["healthy", "degraded", "failing", "no_data"]


def health_word(health: port.Health) -> HealthWord:
    """The score as a word: 95 and more is healthy, 50 and more degraded."""
    if health.score is None:
        return "no_data"
    return "healthy" if health.score >= 95.0 else "degraded" if health.score >= 50.0 else "failing"


def health_answer(health: port.Health | None) -> Measured | NoData:
    """The answer about ``health``; None where the extension has never been called."""
    if health is None or health.score is None:
        return NoData()
    return Measured.model_validate(asdict(health) | {"score": health.score})


class AuditItem(Shape):
    """One change. ``sequence`` grows; ``changes`` is ``{field: {"from": ..., "to": ...}}``."""

    sequence: int
    kind: str
    object_id: str
    uid: str
    generation: int
    action: str
    changed_by: str
    changes: dict[str, Any]
    timestamp: str
    previous_hash: str
    hash: str
    request_id: str
    """The request of this API that made the change; empty for any other way."""


class ExtensionPage(Shape):
    """Extensions in order of id. ``next`` goes into ``after`` for the next page; null at the end."""

    items: list[ExtensionItem]
    next: str | None
    revision: int


class PolicyPage(Shape):
    """Policies in order of id. ``next`` goes into ``after`` for the next page; null at the end."""

    items: list[PolicyItem]
    next: str | None
    revision: int


class AuditPage(Shape):
    """Changes, newest first. ``next`` goes into ``before`` for the next page; null at the end."""

    items: list[AuditItem]
    next: int | None


class RegistryAnswer(Shape):
    """How much there is, at which revision."""

    revision: int
    extensions: int
    enabled_extensions: int
    extensions_by_type: dict[str, int]
    policies: int


def _fields(record: ExtensionRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__} | {
        "failure_mode": effective_failure_mode(record)
    }


def _policy_fields(record: PolicyRecord, view: View) -> dict[str, Any]:
    document = record.policy
    return {name: getattr(record, name) for name in record.__slots__} | {
        "priority": document.get("priority", 0),
        "deadline_ms": document.get("deadline_ms", 60_000),
        "match": masked("", document.get("match", {})),
        "complexity": complexity(document),
        "hints": hints_of(record, view),
    }
