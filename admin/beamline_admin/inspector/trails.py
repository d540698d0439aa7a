"""Trails as pages want them: asked of all routers, for one identity.

Routers remember their last requests without anybody watching; a watch only makes them tell of new ones at
once. What they answer holds no content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from beamline_contract.errors import ErrorCode

from ..identity import Identity
from ..problems import AdminCode, ProblemError
from ..routers import Routers, RoutersError
from .explained import Explained, explained_of
from .waterfall import Trail

LIMIT: Final = 50
"""Requests on the page: more than that nobody reads while they come in."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests; empty is any."""

    q: str = ""
    policy: str = ""
    extension: str = ""
    tenant: str = ""
    status: str = ""

    @property
    def any(self) -> bool:
        """Whether nothing is filtered."""
        return not any((self.q, self.policy, self.extension, self.tenant, self.status))


class Trails:
    """Asks the routers. Methods raise :class:`ProblemError`."""

    def __init__(self, routers: Routers | None) -> None:
        self._routers = routers

    async def recent(self, wanted: Wanted, who: Identity) -> list[Trail]:
        """The last requests that fit and that ``who`` may see, newest first."""
        asked: dict[str, Any] = {"limit": LIMIT}
        for name in ("policy", "extension", "status", "q"):
            if value := getattr(wanted, name):
                asked[name] = value
        if who.tenants is not None:
            asked["tenants"] = sorted(who.tenants & {wanted.tenant} if wanted.tenant else who.tenants)
            if not asked["tenants"]:
                return []
        elif wanted.tenant:
            asked["tenants"] = [wanted.tenant]
        found = [
            trail
            for answer in await self._ask("recent", asked)
            for trail in (answer.get("result") or {}).get("requests") or ()
        ]
        found.sort(key=lambda trail: str(trail.get("at", "")), reverse=True)
        return [Trail.of(one) for one in found[:LIMIT]]

    async def one(self, request_id: str, who: Identity) -> Trail:
        """One request, of the router that remembers it."""
        answers = await self._ask("trace", {"request_id": request_id})
        found = [answer["result"] for answer in answers if answer.get("result")]
        seen = [one for one in found if who.tenants is None or one.get("tenant") in who.tenants]
        if not seen:
            raise ProblemError(
                AdminCode.NOT_FOUND,
                "no router remembers that request",
                hint="routers keep the last requests only; logs and traces know older ones by this id",
            )
        return Trail.of(max(seen, key=lambda trail: str(trail.get("at", ""))))

    async def explain(self, trail: Trail) -> Explained:
        """Which way a request like this one would take now in the router that served it, or in another where
        that one is gone.
        """
        request = {"prompt": "explain", "tenant_id": trail.tenant, "model": trail.model}
        asked = {"request": {name: value for name, value in request.items() if value}}
        answers = await self._ask("explain", {**asked, "instance": trail.instance})
        answers = answers or await self._ask("explain", asked)
        if not answers:
            raise ProblemError(ErrorCode.UNAVAILABLE, "no router answered")
        return explained_of(answers[0])

    async def _ask(self, verb: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self._routers is None:
            raise ProblemError(
                ErrorCode.UNAVAILABLE, "this process was not told where NATS is", hint="set NATS_URL"
            )
        try:
            return await self._routers.ask(verb, asked)
        except RoutersError as error:
            raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error
