"""Trails as pages want them, by the rules of the API: asked of all routers, for one identity.

Routers remember their last requests without anybody watching; a watch only makes them tell of new ones at
once. Content is there for an admin alone, and only as long as the watch that asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from beamline_contract.errors import ErrorCode
from beamline_contract.names import object_id

from ..identity import Identity
from ..live.watcher import Watcher
from ..problems import AdminCode, ProblemError
from ..routers import RoutersError
from ..trail_api import RequestsQuery, recent_trails, trail_of
from ..ways import as_seen
from .explained import Explained, explained_of
from .waterfall import Trail

LIMIT: Final = 50
"""Requests on the page: more than that nobody reads while they come in."""


class Trails:
    """Asks the routers. Methods raise :class:`ProblemError`."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    async def recent(self, wanted: Mapping[str, str], who: Identity) -> list[Trail]:
        """The last requests that fit and that ``who`` may see, newest first; an empty text fits all."""
        asked: dict[str, Any] = {name: text for name, text in wanted.items() if text}
        for name in asked.keys() & {"policy", "extension"}:
            asked[name] = object_id(asked[name].strip())
        try:
            query = RequestsQuery(limit=LIMIT, **asked)
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            raise ProblemError(
                ErrorCode.INVALID_ARGUMENT, f"nothing can have this {field}", field=field
            ) from None
        found, _ = await recent_trails(self._watcher, query, who)
        return [Trail.of(one) for one in found]

    async def one(self, request_id: str, who: Identity) -> Trail:
        """One request, of the router that remembers it."""
        known = self._watcher.trails.get(request_id, who)
        found = known or await trail_of(self._watcher, request_id, who)
        if found is None:
            raise ProblemError(
                AdminCode.NOT_FOUND,
                "no router remembers that request",
                hint="routers keep the last requests only; logs and traces know older ones by this id",
            )
        return Trail.of(found)

    async def explain(
        self, request: Mapping[str, str], headers: Mapping[str, str], router: str, who: Identity
    ) -> list[Explained]:
        """Which way a request would take now, as far as ``who`` may see it: in ``router`` alone where it is
        named and still runs, else in every router.
        """
        asked = {"request": dict(request), "headers": dict(headers)}
        answers = await self._ask({**asked, "instance": router}) if router else []
        answers = answers or await self._ask(asked)
        if not answers:
            raise ProblemError(ErrorCode.UNAVAILABLE, "no router answered")
        if who.tenants is not None:
            view = await self._watcher.view()
            answers = [
                {**answer, "result": as_seen(answer["result"], view, who)}
                if isinstance(answer.get("result"), Mapping)
                else answer
                for answer in answers
            ]
        return [explained_of(answer) for answer in answers]

    async def _ask(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self._watcher.routers is None:
            raise ProblemError(
                ErrorCode.UNAVAILABLE, "this process was not told where NATS is", hint="set NATS_URL"
            )
        try:
            return await self._watcher.routers.ask("explain", asked)
        except RoutersError as error:
            raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error
