"""``/api/v1/events``: what changes, told as it happens, as server-sent events.

A stream begins with how everything stands and goes on with what is new. Who comes again with the header
``Last-Event-ID`` is told first what it missed of what has no state, or ``reset``: then that is not known any
more, and what was made of it has to be loaded anew. A stream ends with the caller's session or
token, with ``seconds`` where that was asked for, when the process stops, and when the caller reads too slowly
(``lagged``): then it comes again. Every fifteen seconds without an event there is a comment, so
that proxies keep the connection and a caller who has gone is noticed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final

import orjson
import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from beamline_contract.errors import ErrorCode
from beamline_registry.port import RegistryError

from .access import Viewer
from .identity import Identity, Role
from .live.hub import TOPICS, FullError, Listener, Told
from .live.watcher import Watcher
from .problems import ProblemError
from .routers import RoutersError

log = structlog.get_logger()

HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 2_000
MAX_SECONDS: Final = 3_600.0
_WHOLE: Final = frozenset({"routers", "breakers", "traffic"})
"""Topics about all tenants at once."""
_MAX_ID: Final = 20
_ANY: Final = "|".join(TOPICS)
MEDIA_TYPE: Final = "text/event-stream"
_EVENT_SCHEMA: Final[dict[str, Any]] = {
    "description": "One event of the stream; `data` is JSON.",
    "type": "object",
    "properties": {
        "event": {"enum": [*TOPICS, "reset", "end", "lagged", "error"]},
        "id": {"type": "string", "description": "A number that grows; `Last-Event-ID` of the next stream."},
        "data": {"type": "string"},
    },
    "required": ["event", "id", "data"],
}


class EventsQuery(BaseModel):
    """Which events, and for how long."""

    model_config = ConfigDict(extra="forbid")

    topics: Annotated[
        str,
        Field(
            pattern=rf"^(({_ANY})(,({_ANY})){{0,5}})?$",
            description=f"Comma-separated, of {', '.join(TOPICS)}; default: all that you may.",
        ),
    ] = ""
    seconds: Annotated[
        float | None,
        Field(gt=0, le=MAX_SECONDS, description="End after so many seconds; default: with the session."),
    ] = None


def events_api(
    watcher: Watcher, *, heartbeat_s: float = HEARTBEAT_S, clock: Callable[[], float] = time.monotonic
) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.get(
        "/events",
        tags=["live"],
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Server-sent events",
                "content": {MEDIA_TYPE: {"schema": _EVENT_SCHEMA}},
            }
        },
    )
    async def stream_events(
        request: Request,
        who: Viewer,
        query: Annotated[EventsQuery, Query()],
    ) -> StreamingResponse:
        """Server-sent events: `event` is the topic, `data` one line of JSON. With the header `Last-Event-ID`
        they begin with what was missed.
        """
        last_event_id = request.headers.get("last-event-id", "")[:_MAX_ID]
        topics = topics_of(query.topics, who)
        if "objects" in topics:
            await watcher.expect_objects()
        try:
            listener = watcher.hub.join(who, topics)
        except FullError as error:
            raise ProblemError(ErrorCode.RESOURCE_EXHAUSTED, str(error), hint="close a stream") from error
        missed = [] if not last_event_id else watcher.hub.missed(listener, _number(last_event_id))
        until = None if query.seconds is None else clock() + query.seconds
        still: Callable[[], Awaitable[bool]] = request.state.still
        body = _told(
            watcher, listener, missed, until=until, still=still, heartbeat_s=heartbeat_s, clock=clock
        )
        return StreamingResponse(body, media_type=MEDIA_TYPE, headers={"x-accel-buffering": "no"})

    return routes


def topics_of(asked: str, who: Identity) -> frozenset[str]:
    """The topics of a request. Raises :class:`ProblemError` for what ``who`` may not."""
    wanted = {name for name in asked.split(",") if name}
    allowed = set(TOPICS) - (_WHOLE if who.tenants is not None else set())
    if not who.role.covers(Role.OPERATOR):
        allowed.discard("trail")
    denied = wanted - allowed
    if denied:
        why = "concerns every tenant" if denied & _WHOLE else "needs the role operator"
        raise ProblemError(ErrorCode.PERMISSION_DENIED, f"{min(denied)} {why}", field="topics")
    return frozenset(wanted or allowed)


async def _told(
    watcher: Watcher,
    listener: Listener,
    missed: list[Told] | None,
    *,
    until: float | None,
    still: Callable[[], Awaitable[bool]],
    heartbeat_s: float,
    clock: Callable[[], float],
) -> AsyncIterator[bytes]:
    checked, last = clock(), listener.number
    try:
        yield f"retry: {RETRY_MS}\n\n".encode()
        if missed is None:
            yield _event(last, "reset", {"reason": "what came since your last event is not known any more"})
        for told in missed or ():
            yield _event(*told)
        for last, (topic, document) in enumerate(await _present(watcher, listener), listener.number):
            yield _event(last, topic, document)
        while not listener.over():
            left = heartbeat_s if until is None else min(heartbeat_s, until - clock())
            if left <= 0:
                return
            found = await listener.next(left)
            if clock() - checked >= heartbeat_s:
                checked = clock()
                if not await still():
                    yield _event(last, "end", {"reason": "the session is over"})
                    return
            if found is not None:
                last = found[0]
                yield _event(*found)
            elif not listener.over() and (until is None or clock() < until):
                yield b": still here\n\n"
        if listener.lagged:
            yield _event(last, "lagged", {"reason": "events came faster than they were read"})
    except Exception as error:
        log.exception("admin.stream_failed", error=type(error).__name__)
        problem = ProblemError(ErrorCode.INTERNAL, f"the stream failed ({type(error).__name__})")
        yield _event(last, "error", problem.document("").model_dump(exclude_none=True))
    finally:
        watcher.hub.leave(listener)


async def _present(watcher: Watcher, listener: Listener) -> list[tuple[str, dict[str, Any]]]:
    """How everything stands that has a state; what can't be asked now is left out."""
    found: list[tuple[str, dict[str, Any]]] = []
    looks: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
        "routers": lambda: _routers(watcher),
        "breakers": watcher.breakers,
        "canaries": lambda: watcher.canaries(listener.who),
        "traffic": watcher.traffic,
    }
    for topic, look in looks.items():
        if topic in listener.topics:
            try:
                found.append((topic, await look()))
            except (RoutersError, RegistryError) as error:
                log.info("admin.state_unknown", topic=topic, error=str(error)[:200])
    return found


async def _routers(watcher: Watcher) -> dict[str, Any]:
    return {"routers": await watcher.statuses()}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else -1


def _event(number: int, topic: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (topic.encode(), number, orjson.dumps(data, default=str))
