"""``/api/v1``: traffic, breakers and canaries, as they are now; acts on canaries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from beamline_contract.errors import ErrorCode
from beamline_contract.names import GROUP

from .access import ObjectId, Operator, Viewer
from .api import found, seen_extension
from .catalogue import Catalogue
from .change_api import HowTo, WriteAnswer, answer_of, how_of
from .identity import Identity
from .live.watcher import Watcher
from .problems import ProblemError
from .routers import RoutersError
from .scope import Scope
from .shapes import Shape
from .writing import Writer


class TrafficQuery(BaseModel):
    """Which part of the traffic."""

    model_config = ConfigDict(extra="forbid")

    minutes: Annotated[float, Field(gt=0, le=60, description="How far back the samples go.")] = 30.0


class TrafficSample(Shape):
    """All routers between two looks. Latencies are null where nothing was asked."""

    at: str
    requests: int
    errors: int
    """What failed and was not the caller's fault."""
    p50_ms: float | None
    p99_ms: float | None


class ExtensionTraffic(Shape):
    """Steps of one extension, retries not counted."""

    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None


class StepTraffic(Shape):
    """One step of a policy."""

    requests: int
    errors: int


class PolicyTraffic(Shape):
    """Requests of one policy. ``steps`` go by their names."""

    requests: int
    errors: int
    steps: dict[str, StepTraffic]


class TrafficAnswer(Shape):
    """Traffic of all routers: samples of the time asked for, extensions and policies of the last five
    minutes.
    """

    interval_seconds: float
    samples: list[TrafficSample]
    extensions: dict[str, ExtensionTraffic]
    policies: dict[str, PolicyTraffic]


class BreakerItem(Shape):
    """An extension's breakers. ``state`` is the worst of all routers; those that are not named say closed."""

    state: str
    score: float | None
    routers: dict[str, str]


class BreakersAnswer(Shape):
    """Breakers by extension: of those that were called, or whose breaker is not closed."""

    extensions: dict[str, BreakerItem]


class CanaryStepItem(Shape):
    """One step of a canary's plan."""

    weight: int
    pause_seconds: int


class GateItem(Shape):
    """One thing that must be so in each step."""

    name: str
    limit: float


class CanaryItem(Shape):
    """A version that takes over its base's requests step by step."""

    id: str
    """The version."""
    extension: str
    """Its base."""
    step: int
    """From 1; 0 before the first."""
    steps: list[CanaryStepItem]
    weight: int
    """Percent of the base's requests that it takes."""
    phase: str
    """Waiting, Progressing, Paused, Promoted, RolledBack, Aborted; Unknown before the operator has spoken."""
    since: str | None
    gates: list[GateItem]
    last: str | None
    """What the operator said last."""


class CanariesAnswer(Shape):
    """All canaries, by id."""

    canaries: list[CanaryItem]


def live_api(watcher: Watcher, catalogue: Catalogue, writer: Writer) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/traffic", tags=["live"])
    async def get_traffic(who: Viewer, query: Annotated[TrafficQuery, Query()]) -> TrafficAnswer:
        """Requests, errors and latencies of all routers; since this process started, at most an hour."""
        Scope(who.tenants).must_be_whole()
        try:
            return TrafficAnswer.model_validate(await watcher.traffic(query.minutes))
        except RoutersError as error:
            raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error

    @routes.get("/breakers", tags=["runtime"])
    async def list_breakers(who: Viewer) -> BreakersAnswer:
        """Breakers of all routers, asked at this moment."""
        Scope(who.tenants).must_be_whole()
        try:
            return BreakersAnswer.model_validate(await watcher.breakers())
        except RoutersError as error:
            raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error

    @routes.get("/canaries", tags=["canaries"])
    async def list_canaries(who: Viewer) -> CanariesAnswer:
        """Canaries: step, weight, gates, and what the operator said last."""
        return CanariesAnswer.model_validate(await watcher.canaries(who))

    @routes.post("/canaries/{identifier}/promote", tags=["canaries"])
    async def promote(request: Request, identifier: ObjectId, query: HowTo, who: Operator) -> WriteAnswer:
        """Gives the canary all requests at once. `wait=programmed` waits until the operator has acted."""
        return await _act("promote", request, identifier, query, who)

    @routes.post("/canaries/{identifier}/abort", tags=["canaries"])
    async def abort(request: Request, identifier: ObjectId, query: HowTo, who: Operator) -> WriteAnswer:
        """Takes all requests from the canary. `wait=programmed` waits until the operator has acted."""
        return await _act("abort", request, identifier, query, who)

    async def _act(word: str, request: Request, identifier: str, query: Any, who: Identity) -> WriteAnswer:
        record = seen_extension(await catalogue.view(), identifier, who)
        found(record if record.spec.get("canary") is not None else None, "canary", "/canaries")
        how = how_of(request, query, who)
        done = await writer.annotate(identifier, f"{GROUP}/{word}", how.request_id, how, acted=word)
        return answer_of(done)

    return routes
