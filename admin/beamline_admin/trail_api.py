"""``/api/v1``: which way requests went. Routers remember the last ones, without content; a watch makes them
tell more as it happens.
"""

from __future__ import annotations

import hashlib
import time
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

import structlog
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from beamline_contract.errors import ErrorCode
from beamline_contract.names import REQUEST_ID_PATTERN, TENANT_PATTERN

from .access import Operator, Viewer
from .identity import Identity, Role
from .live.traffic import stamp
from .live.trails import Wanted, fits
from .live.watcher import Watcher
from .problems import AdminCode, ProblemError
from .routers import RoutersError
from .runtime_api import refused
from .scope import Scope
from .shapes import Shape

log = structlog.get_logger()

MAX_LIMIT: Final = 100
MAX_WATCH_S: Final = 600.0
_NAME: Final = r"^[a-z][a-z0-9_-]{0,252}$"
_MAX_TENANTS: Final = 256
RequestId = Annotated[str, Path(pattern=REQUEST_ID_PATTERN, description="As `X-Request-Id` said it.")]


class WatchBody(BaseModel):
    """What to watch. 0 seconds ends your watch."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seconds: Annotated[float, Field(ge=0, le=MAX_WATCH_S)] = 60.0
    sample: Annotated[float, Field(ge=0, le=1, description="Share of the requests.")] = 1.0
    tenant: Annotated[str | None, Field(pattern=TENANT_PATTERN)] = None
    content: Annotated[
        bool, Field(description="Prompts and answers too: admins, where BEAMLINE_TRAIL_CONTENT allows it.")
    ] = False


class WatchAnswer(Shape):
    """A watch is on, in so many routers."""

    until: str
    routers: int


class RequestsQuery(BaseModel):
    """Which requests."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 50
    policy: Annotated[str | None, Field(pattern=_NAME)] = None
    extension: Annotated[str | None, Field(pattern=_NAME, description="That met this extension.")] = None
    tenant: Annotated[str | None, Field(pattern=TENANT_PATTERN)] = None
    status: Annotated[
        str | None, Field(pattern=r"^[A-Za-z_]{1,64}$", description="`ok`, `error`, or an error code.")
    ] = None
    q: Annotated[
        str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$", description="Text in ids, names and codes.")
    ] = ""


class TrailError(Shape):
    """Why a request has no answer. ``message`` is there only where the router wrote it about itself."""

    code: str
    message: str | None = None
    step: str | None = None
    extension: str | None = None
    attempts: int | None = None
    retryable: bool = False


class TrailStep(Shape):
    """One step. ``start_ms`` is from the request's arrival, ``ms`` includes all attempts."""

    name: str
    action: str
    extension: str
    version: str | None = None
    start_ms: float
    ms: float
    outcome: str
    reason: str | None = None
    """The error's code."""
    why: str | None = None
    """How a provider came to be asked: the strategy, canary, fallback, last trial."""
    attempts: int
    breaker: str | None = None
    mode: Literal["enforce", "shadow", "overlap"] = "enforce"
    parallel_group: str | None = None


class TrailContent(Shape):
    """What was asked and answered, cut to 16,000 characters each."""

    prompt: str | None = None
    answer: str | None = None


class Trail(Shape):
    """One request: where it went, how long each step took, and why this provider."""

    request_id: str
    trace_id: str
    at: str
    instance: str
    """The router."""
    door: str
    policy: str | None
    tenant: str | None
    environment: str | None = None
    model: str | None = None
    status: Literal["ok", "error"]
    error: TrailError | None
    latency_ms: float
    provider: str | None
    reason: str | None
    """Why this provider."""
    steps: list[TrailStep]
    content: TrailContent | None = None


class TrailPage(Shape):
    """Requests, newest first, of as many routers as answered."""

    items: list[Trail]
    routers: int


def trail_api(watcher: Watcher, *, content: bool) -> APIRouter:
    """The routes. ``content``: the setting that lets admins ask for it."""
    routes = APIRouter(tags=["requests"])
    process = uuid4().hex[:12]

    @routes.post("/trail/watch")
    async def watch_requests(body: WatchBody, who: Operator) -> WatchAnswer:
        """Lets routers tell trails as they happen, on the topic `trail` of `/events`, for a while."""
        tenant = _tenant(body.tenant, who)
        if body.content:
            _must_see_content(who, content)
        asked: dict[str, Any] = {
            "watch": f"{process}-{_key(who)}",
            "seconds": body.seconds,
            "sample": body.sample,
            "content": body.content,
        }
        answers = await _ask(watcher, "watch", asked if tenant is None else {**asked, "tenant": tenant})
        if body.content:
            watcher.trails.allow_content(body.seconds)
        log.info(
            "admin.watch", who=who.subject, seconds=body.seconds, sample=body.sample, content=body.content
        )
        return WatchAnswer(until=stamp(time.time() + body.seconds), routers=len(answers))

    @routes.get("/requests")
    async def list_requests(who: Viewer, query: Annotated[RequestsQuery, Query()]) -> TrailPage:
        """The last requests of all routers, newest first, as far as routers remember them."""
        newest, routers = await recent_trails(watcher, query, who)
        return TrailPage(items=[Trail.model_validate(one) for one in newest], routers=routers)

    @routes.get("/requests/{request_id}")
    async def get_request(who: Viewer, request_id: RequestId) -> Trail:
        """One request: which router, which steps, why this provider, what went wrong."""
        found = watcher.trails.get(request_id, who) or await trail_of(watcher, request_id, who)
        if found is None:
            raise ProblemError(
                AdminCode.NOT_FOUND,
                "no router knows this request",
                field="request_id",
                hint="routers remember the last ones only, failed and slow ones longer",
            )
        return Trail.model_validate(found)

    return routes


async def recent_trails(
    watcher: Watcher, query: RequestsQuery, who: Identity
) -> tuple[list[dict[str, Any]], int]:
    """The last requests that fit and that ``who`` may see, newest first, and of how many routers. Raises
    :class:`ProblemError`.
    """
    asked = query.model_dump(exclude={"tenant"}, exclude_none=True)
    tenants = _tenants(query.tenant, who)
    if tenants is not None:
        asked["tenants"] = sorted(tenants)[:_MAX_TENANTS]
    answers = await _ask(watcher, "recent", asked)
    found: dict[str, dict[str, Any]] = {}
    wanted = Wanted(query.policy, query.extension, query.tenant, query.status, query.q)
    for trail in watcher.trails.list(who, wanted):
        found[trail["request_id"]] = trail
    for answer in answers:
        for trail in answer["result"].get("requests") or ():
            shown = watcher.trails.shown(trail, who)
            if shown is not None and fits(shown, wanted):
                found[trail["request_id"]] = shown
    newest = sorted(found.values(), key=lambda one: str(one["at"]), reverse=True)[: query.limit]
    return newest, len(answers)


async def trail_of(watcher: Watcher, request_id: str, who: Identity) -> dict[str, Any] | None:
    """What routers know about one request, as far as ``who`` may see it. Raises :class:`ProblemError`."""
    if watcher.routers is None:
        raise _not_told()
    try:
        answers = await watcher.routers.ask(
            "trace", {"request_id": request_id}, lambda answer: "result" in answer
        )
    except RoutersError as error:
        raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error
    for answer in answers:
        if isinstance(answer.get("result"), dict):
            return watcher.trails.shown(answer["result"], who)
    return None


async def _ask(watcher: Watcher, verb: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers without those that refused. Raises :class:`ProblemError` where all did, or none came."""
    if watcher.routers is None:
        raise _not_told()
    try:
        answers = await watcher.routers.ask(verb, asked)
    except RoutersError as error:
        raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error
    good = [one for one in answers if isinstance(one.get("result"), dict)]
    wrong = [one["error"] for one in answers if isinstance(one.get("error"), dict)]
    if not good and wrong:
        raise refused(wrong[0])
    if not good:
        raise ProblemError(ErrorCode.UNAVAILABLE, "no router answered", hint="GET /api/v1/routers")
    return good


def _tenant(asked: str | None, who: Identity) -> str | None:
    """The tenant of a watch; who is bound to tenants watches one of them."""
    if who.tenants is None or asked is not None:
        Scope(who.tenants).must_be_own(asked, field="tenant")
        return asked
    if len(who.tenants) != 1:
        raise ProblemError(ErrorCode.PERMISSION_DENIED, "name one of your tenants", field="tenant")
    return next(iter(who.tenants))


def _tenants(asked: str | None, who: Identity) -> frozenset[str] | None:
    if asked is None:
        return who.tenants
    return frozenset({asked}) if who.tenants is None else who.tenants & {asked}


def _must_see_content(who: Identity, allowed: bool) -> None:
    if not who.role.covers(Role.ADMIN):
        raise ProblemError(ErrorCode.PERMISSION_DENIED, "content needs the role admin", field="content")
    if not allowed:
        raise ProblemError(
            ErrorCode.PERMISSION_DENIED,
            "content is off",
            field="content",
            hint="set BEAMLINE_TRAIL_CONTENT=true here and in the routers",
        )


def _key(who: Identity) -> str:
    """One watch per caller, so that a second one takes the place of the first."""
    return hashlib.sha256(who.subject.encode()).hexdigest()[:16]


def _not_told() -> ProblemError:
    return ProblemError(ErrorCode.UNAVAILABLE, "this process was not told where NATS is", hint="set NATS_URL")
