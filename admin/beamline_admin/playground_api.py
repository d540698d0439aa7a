"""``/api/v1/playground``: a request sent through a real router, and the way that it took; by two policies
side by side where that is asked for; in one piece, or (:mod:`.playground_stream`) as it comes.

Where routers want an API key, the caller sends one along. It is passed on as a header of this one request,
and nowhere kept or logged: this process has no key of its own that others could use through it.

Nothing changes by it, so it is no row of the audit log; a line in the log says who asked, without content.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

import structlog
from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, SecretStr

from beamline_contract.errors import ErrorCode
from beamline_contract.names import HEADER_DEADLINE_MS, HEADER_REQUEST_ID

from .access import Operator
from .identity import Identity
from .live.watcher import Watcher
from .problems import ProblemError
from .routers import RoutersError
from .scope import Scope
from .shapes import Shape
from .trail_api import Trail, trail_of
from .ways import must_see_policies

log = structlog.get_logger()

MAX_SECONDS: Final = 60.0
_GRACE_S: Final = 2.0
PolicyId = Annotated[str | None, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
KEY_PATTERN: Final = r"^[\x21-\x7e]{1,256}$"
KEY_HEADERS: Final = frozenset({"authorization", "x-api-key"})


def _key(value: SecretStr) -> SecretStr:
    """A key is one word: anything else would be a header of its own on its way."""
    if re.fullmatch(KEY_PATTERN, value.get_secret_value()) is None:
        raise ValueError("must be 1 to 256 printable characters without a space")
    return value


Key = Annotated[
    SecretStr,
    AfterValidator(_key),
    Field(
        json_schema_extra={"pattern": KEY_PATTERN},
        description="API key of the router, where it wants one; passed on with this request and not kept.",
    ),
]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,512}$")]


class PlaygroundBody(BaseModel):
    """A request as ``POST /v1/route`` takes it, and by which policies; else by the one that matches."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request: dict[str, JsonValue]
    policy: PolicyId = None
    compare: PolicyId = None
    headers: Annotated[
        dict[HeaderName, HeaderValue],
        Field(
            max_length=32,
            description="Headers that policies may match.",
            json_schema_extra={"additionalProperties": False},
        ),
    ] = {}
    key: Key | None = None
    trail: bool = True
    timeout_s: Annotated[float, Field(gt=0, le=MAX_SECONDS)] = 30.0


class PlaygroundAnswer(Shape):
    """What one router answered: ``answer`` as of ``POST /v1/route``, or ``error`` with code and message."""

    policy: str | None
    status: Literal["ok", "error"]
    request_id: str
    latency_ms: float
    answer: dict[str, Any] | None
    error: dict[str, Any] | None
    trail: Trail | None


class PlaygroundAnswers(Shape):
    """One answer, or two where policies are compared."""

    answers: list[PlaygroundAnswer]


def playground_api(watcher: Watcher) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/playground", tags=["requests"])
    async def try_request(request: Request, body: PlaygroundBody, who: Operator) -> PlaygroundAnswers:
        """Sends a request through a router; extensions and providers are really called."""
        return PlaygroundAnswers(answers=await played(watcher, body, who, request.state.request_id))

    return routes


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as a router gets it. ``headers`` hold the caller's key: never log them."""

    policy: str | None
    request_id: str
    request: Mapping[str, Any]
    headers: Mapping[str, str]
    seconds: float


async def asked_of(watcher: Watcher, body: PlaygroundBody, who: Identity) -> list[Asked]:
    """The requests that ``body`` means, one for each policy. Raises :class:`ProblemError` where ``who`` may
    not, or no router can be asked.
    """
    tenant = body.request.get("tenant_id")
    Scope(who.tenants).must_be_own(tenant if isinstance(tenant, str) else None)
    if who.tenants is not None:  # everybody else plays while there is no registry, too
        must_see_policies(await watcher.view(), who, body.request, body.policy, body.compare)
    if watcher.routers is None:
        raise ProblemError(
            ErrorCode.UNAVAILABLE, "this process was not told where NATS is", hint="set NATS_URL"
        )
    policies = [body.policy] if body.compare is None else [body.policy, body.compare]
    return [_asked(body, policy) for policy in policies]


def _asked(body: PlaygroundBody, policy: str | None) -> Asked:
    request: dict[str, Any] = {name: value for name, value in body.request.items() if name != "stream"}
    if policy is not None:
        request["policy"] = policy
    named = ((name.lower(), value) for name, value in body.headers.items())
    headers = {name: value for name, value in named if not name.startswith("beamline-")}
    if body.key is not None:
        headers = {name: value for name, value in headers.items() if name not in KEY_HEADERS}
        headers["x-api-key"] = body.key.get_secret_value()
    request_id = uuid4().hex
    headers |= {HEADER_REQUEST_ID: request_id, HEADER_DEADLINE_MS: f"{body.timeout_s * 1000.0:.0f}"}
    return Asked(policy, request_id, request, headers, body.timeout_s + _GRACE_S)


async def played(
    watcher: Watcher, body: PlaygroundBody, who: Identity, request_id: str
) -> list[PlaygroundAnswer]:
    """Sends the request, once for each policy. Raises :class:`ProblemError`."""
    requests = await asked_of(watcher, body, who)
    answers = await asyncio.gather(*(_one(watcher, asked, who, body.trail) for asked in requests))
    told(who, request_id, answers)
    return list(answers)


def told(who: Identity, request_id: str, answers: Iterable[PlaygroundAnswer]) -> None:
    """The line in the log."""
    listed = list(answers)
    log.info(
        "admin.playground",
        who=who.subject,
        request_id=request_id,
        policies=[one.policy for one in listed],
        status=[one.status for one in listed],
    )


async def _one(watcher: Watcher, asked: Asked, who: Identity, want_trail: bool) -> PlaygroundAnswer:
    assert watcher.routers is not None
    began = time.monotonic()
    try:
        found = await watcher.routers.invoke(asked.request, asked.headers, asked.seconds)
    except RoutersError as error:
        raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error
    seconds = time.monotonic() - began
    return await answered(watcher, asked, who, found, seconds, want_trail=want_trail)


async def answered(
    watcher: Watcher,
    asked: Asked,
    who: Identity,
    found: dict[str, Any],
    seconds: float,
    *,
    want_trail: bool,
) -> PlaygroundAnswer:
    """What a router's reply means."""
    trail = await _trail(watcher, asked.request_id, who) if want_trail else None
    wrong = found.get("error")
    failed = isinstance(wrong, dict)
    return PlaygroundAnswer(
        policy=found.get("policy") or (trail.policy if trail is not None else asked.policy),
        status="error" if failed else "ok",
        request_id=asked.request_id,
        latency_ms=round(seconds * 1000.0, 3),
        answer=None if failed else found,
        error=wrong if failed else None,
        trail=trail,
    )


async def _trail(watcher: Watcher, request_id: str, who: Identity) -> Trail | None:
    """The trail, where the router that served the request still says it."""
    try:
        found = await trail_of(watcher, request_id, who)
    except ProblemError:
        return None
    return None if found is None else Trail.model_validate(found)
