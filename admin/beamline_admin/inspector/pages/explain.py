"""``/explain``: which way a request would take now, and why; all that matching looks at can be stated.

"Explain this one" of a request leads here with what routers remember of it. Nothing is called, so it is a
form that is read by GET: the address says what was asked, and can be sent to somebody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from beamline_contract.names import object_id

from ...access import Viewer
from ...problems import ProblemError
from ...scope import Scope, tenants_of
from ...ways import must_see_policies
from ..explained import Explained
from ..trails import Trails
from .playground import MAX_POLICIES, headers_of

if TYPE_CHECKING:
    from ..site import Site


class ExplainQuery(BaseModel):
    """What a request would say. ``id`` decides percentages; ``router`` asks one alone, ``of`` names the
    request that is explained.
    """

    tenant: Annotated[str, Field(max_length=128)] = ""
    environment: Annotated[str, Field(max_length=63)] = ""
    model: Annotated[str, Field(max_length=256)] = ""
    policy: Annotated[str, Field(max_length=253)] = ""
    headers: Annotated[str, Field(max_length=4_096)] = ""
    id: Annotated[str, Field(max_length=128)] = ""
    router: Annotated[str, Field(max_length=128)] = ""
    of: Annotated[str, Field(max_length=128)] = ""


def routes(site: Site) -> APIRouter:
    """``/explain``."""
    found = APIRouter()
    trails = Trails(site.parts.watcher)

    @found.get("/explain")
    async def explain(
        request: Request, identity: Viewer, query: Annotated[ExplainQuery, Query()]
    ) -> Response:
        view = await site.parts.catalogue.view()
        scope = Scope(identity.tenants)
        problem: ProblemError | None = None
        explained: list[Explained] = []
        if request.query_params:
            try:
                scope.must_be_own(query.tenant.strip() or None, field="tenant")
                asked = request_of(query)
                must_see_policies(view, identity, asked)
                router = query.router.strip()
                explained = await trails.explain(asked, headers_of_query(query), router, identity)
            except ProblemError as error:
                problem = error
        policies = [one.id for one in view.policies.values() if scope.sees([tenants_of(one)])]
        return site.page(
            request,
            "explain.html",
            identity,
            status=200 if problem is None else problem.status,
            fields=query,
            explained=explained[0] if explained else None,
            differing=[one for one in explained[1:] if not one.agrees_with(explained[0])],
            routers=len(explained),
            others=explained[0].others if explained else [],
            whole=identity.tenants is None,
            problem=problem,
            policies=policies[:MAX_POLICIES],
            tenants=sorted(identity.tenants) if identity.tenants is not None else None,
        )

    return found


def request_of(query: ExplainQuery) -> dict[str, str]:
    """The request that the fields mean; its prompt is never looked at."""
    stated = {
        "tenant_id": query.tenant,
        "environment": query.environment,
        "model": query.model,
        "policy": object_id(query.policy.strip()),
    }
    return {"prompt": "explain"} | {name: text.strip() for name, text in stated.items() if text.strip()}


def headers_of_query(query: ExplainQuery) -> dict[str, str]:
    """Its headers, the request id among them. Raises :class:`ProblemError`."""
    headers = headers_of(query.headers)
    return headers | {"x-request-id": query.id.strip()} if query.id.strip() else headers
