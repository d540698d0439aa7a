"""What a router tells the operator over NATS, and the hint that the operator sends to routers.

These messages are hints and observations, never configuration: the truth is the object and its registry row.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

STATUS_INTERVAL_S = 5.0
"""A router publishes its status after every swap and at least this often."""
STATUS_TTL_S = 16.0
"""A router that has not reported for this long (three intervals) is forgotten."""
HEALTH_INTERVAL_S = 5.0
"""Routers publish health deltas and breaker states this often, and only what changed."""


class Report(BaseModel):
    """Base of messages between components: unknown fields are ignored, so that versions can differ by one."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Changed(Report):
    """Hint on ``beamline.registry.v1.changed``: the registry has reached this revision."""

    revision: int


class Probe(Report):
    """On ``beamline.router.v1.probe``: report now; every router, or the one that is named."""

    instance: str | None = None


class Refused(Report):
    """One object that a router could not compile; its last good version keeps serving."""

    kind: Literal["Extension", "RoutingPolicy"]
    id: str
    generation: int
    field: str
    reason: str


class Notice(Report):
    """Something about an object that works as written, but not as its author may think."""

    kind: Literal["Extension", "RoutingPolicy"]
    id: str
    reason: Literal["MatchesNothing", "Overridden", "Complex", "NearLimit"]
    message: str
    other_id: str | None = None


class RouterStatus(Report):
    """On ``beamline.router.v1.status``: what one router serves. ``instance`` is unique per process start.

    ``leaving`` is true in the last message of a router that shuts down, so that it is forgotten at once.
    """

    instance: str
    revision: int
    started_at: str
    refused: Annotated[list[Refused], Field(max_length=1000)] = []
    notices: Annotated[list[Notice], Field(max_length=1000)] = []
    extensions: int = 0
    policies: int = 0
    leaving: bool = False


class HealthDelta(Report):
    """Calls to one extension since the router's last report. ``latency_ms_sum`` is over all of them."""

    extension_id: str
    success: int = 0
    failure: int = 0
    latency_ms_sum: float = 0.0
    last_success: str | None = None
    last_failure: str | None = None
    last_error: str | None = None
    breaker: Literal["closed", "open", "half-open", "isolated"] = "closed"


class RouterHealth(Report):
    """On ``beamline.router.v1.health``: deltas since the last report; ``sequence`` exposes a repeat."""

    instance: str
    sequence: int
    deltas: list[HealthDelta]
