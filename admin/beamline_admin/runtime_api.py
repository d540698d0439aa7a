"""``/api/v1``: what runs now. Every answer comes from the routers themselves, asked at that moment."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from beamline_contract.errors import ErrorCode

from .access import ObjectId, Operator, Viewer
from .catalogue import Catalogue, View
from .problems import AdminCode, ProblemError
from .routers import Routers, RoutersError
from .scope import Scope, concerned_rows
from .shapes import Shape


class ExplainBody(BaseModel):
    """A request as ``POST /v1/route`` takes it, and the headers that it would have."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request: dict[str, JsonValue]
    headers: Annotated[dict[str, str], Field(max_length=64)] = {}
    instance: Annotated[
        str | None, Field(pattern=r"^[\x21-\x7e]{1,128}$", description="Only this router.")
    ] = None


class RouterAnswer(Shape):
    """What one router answered: ``result``, or ``error`` with code and message."""

    instance: str
    result: dict[str, Any] | None
    error: dict[str, Any] | None


class RoutersAnswer(Shape):
    """What every router answered, by instance."""

    routers: list[RouterAnswer]


def runtime_api(routers: Routers | None, catalogue: Catalogue) -> APIRouter:
    """The routes. ``routers`` None: this process was not told where NATS is."""
    routes = APIRouter()

    async def ask(verb: str, request: dict[str, Any]) -> RoutersAnswer:
        if routers is None:
            raise ProblemError(
                ErrorCode.UNAVAILABLE, "this process was not told where NATS is", hint="set NATS_URL"
            )
        try:
            answers = await routers.ask(verb, request)
        except RoutersError as error:
            raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error
        items = [
            RouterAnswer(instance=found["instance"], result=found.get("result"), error=found.get("error"))
            for found in answers
        ]
        if not items and verb != "status":
            raise ProblemError(ErrorCode.UNAVAILABLE, "no router answered", hint="GET /api/v1/routers")
        wrong = [item.error for item in items if item.error is not None]
        if wrong and len(wrong) == len(items):
            raise refused(wrong[0])
        return RoutersAnswer(routers=items)

    @routes.get("/routers", tags=["runtime"])
    async def list_routers(who: Viewer) -> RoutersAnswer:
        """Running routers: revision, age, load, breakers that are not closed, what they refused."""
        Scope(who.tenants).must_be_whole()
        return await ask("status", {})

    @routes.post("/explain", tags=["runtime"])
    async def explain_request(body: ExplainBody, who: Viewer) -> RoutersAnswer:
        """Which way a request would take in each router now, and why; nothing is called."""
        tenant = body.request.get("tenant_id")
        scope = Scope(who.tenants)
        scope.must_be_own(tenant if isinstance(tenant, str) else None)
        asked: dict[str, Any] = {"request": body.request, "headers": body.headers}
        if body.instance is not None:
            asked["instance"] = body.instance
        if who.tenants is None:
            return await ask("explain", asked)
        view = await catalogue.view()
        scope.must_see_policy(body.request.get("policy"), view, field="request.policy")
        answer = await ask("explain", asked)
        for item in answer.routers:
            if item.result is not None:
                item.result["others"] = scope.seen_others(item.result.get("others") or (), view)
        return answer

    @routes.post("/extensions/{identifier}/isolate", tags=["runtime"])
    async def isolate_extension(identifier: ObjectId, who: Operator) -> RoutersAnswer:
        """Every call to it is refused in all running routers until it is reset, or they end."""
        must_write_row(identifier, await catalogue.view(), who.tenants)
        return await ask("isolate", {"extension": identifier})

    @routes.post("/extensions/{identifier}/reset", tags=["runtime"])
    async def reset_extension(identifier: ObjectId, who: Operator) -> RoutersAnswer:
        """Closes its breakers in all running routers, isolated ones too."""
        must_write_row(identifier, await catalogue.view(), who.tenants)
        return await ask("reset", {"extension": identifier})

    return routes


def must_write_row(identifier: str, view: View, tenants: frozenset[str] | None) -> None:
    """Raises :class:`ProblemError` where an extension of the registry is not the caller's to act on."""
    if identifier not in view.extensions:
        raise ProblemError(AdminCode.NOT_FOUND, "there is no such extension", field="id")
    concerned, scope = concerned_rows(identifier, view), Scope(tenants)
    if scope.may_write(concerned):
        return
    if not scope.sees(concerned):
        raise ProblemError(AdminCode.NOT_FOUND, "there is no such extension", field="id")
    raise ProblemError(ErrorCode.PERMISSION_DENIED, "it serves tenants that are not yours")


def refused(error: dict[str, Any]) -> ProblemError:
    """The problem that a router answered with."""
    known = {code.value: code for code in ErrorCode}
    code = known.get(str(error.get("code")), ErrorCode.INTERNAL)
    field = (error.get("details") or {}).get("field")
    return ProblemError(code, str(error.get("message", "a router refused"))[:500], field=field)
