"""``/requests``: the last requests of all routers as waterfalls; ``/requests/{id}``: one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from beamline_contract.errors import ErrorCode
from beamline_contract.names import REQUEST_ID_PATTERN

from ...access import Viewer
from ...problems import ProblemError
from ..trails import Trails

if TYPE_CHECKING:
    from ..site import Site

STATUSES: Final = {
    "": "Any status",
    "ok": "Answered",
    "error": "Failed",
    **{code.value: code.value for code in ErrorCode},
}
Id = Annotated[str, Path(pattern=REQUEST_ID_PATTERN)]


class RequestsQuery(BaseModel):
    """Which requests. What is not known is ignored: an old link still shows something."""

    q: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")] = ""
    policy: Annotated[str, Field(max_length=253)] = ""
    extension: Annotated[str, Field(max_length=253)] = ""
    tenant: Annotated[str, Field(max_length=128)] = ""
    status: Annotated[str, Field(max_length=64)] = ""


def routes(site: Site) -> APIRouter:
    """``/requests`` and what is below."""
    found = APIRouter()
    trails = Trails(site.parts.watcher)

    @found.get("/requests")
    async def requests(
        request: Request, identity: Viewer, query: Annotated[RequestsQuery, Query()]
    ) -> Response:
        wanted = query.model_dump()
        problem: ProblemError | None = None
        try:
            listed = await trails.recent(wanted, identity)
        except ProblemError as error:
            problem, listed = error, []
        return site.page(
            request,
            "requests.html",
            identity,
            wanted=wanted,
            filtered=any(wanted.values()),
            problem=problem,
            trails=listed,
            statuses=STATUSES,
            tenants=sorted(identity.tenants) if identity.tenants is not None else None,
        )

    @found.get("/requests/{request_id}")
    async def one(request: Request, identity: Viewer, request_id: Id) -> Response:
        trail = await trails.one(request_id, identity)
        known = {
            "tenant": trail.tenant,
            "environment": trail.environment,
            "model": trail.model,
            "id": trail.request_id,
            "router": trail.instance,
            "of": trail.request_id,
        }
        explain = "/explain?" + urlencode({name: text for name, text in known.items() if text})
        return site.page(request, "request.html", identity, trail=trail, explain=explain)

    return found
