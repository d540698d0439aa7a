"""``/api/v1``: what runs now. Every answer comes from the routers themselves, asked at that moment."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from beamline_contract.acts import ActVerb
from beamline_contract.errors import ErrorCode

from .access import ObjectId, Operator, Viewer
from .acts import act_on_routers
from .catalogue import Catalogue, View
from .identity import Identity
from .preconditions import Request as How
from .problems import AdminCode, ProblemError
from .routers import Routers, RoutersError
from .scope import Scope, concerned_rows
from .shapes import Shape
from .ways import as_seen, must_see_policies


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
        return told(answers, verb)

    def told(answers: list[dict[str, Any]], verb: str) -> RoutersAnswer:
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
        Scope(who.tenants).must_be_own(tenant if isinstance(tenant, str) else None)
        view = View() if who.tenants is None else await catalogue.view()  # while there is no registry, too
        must_see_policies(view, who, body.request)
        asked: dict[str, Any] = {"request": body.request, "headers": body.headers}
        found = await ask("explain", asked if body.instance is None else {**asked, "instance": body.instance})
        return RoutersAnswer(
            routers=[
                one.model_copy(update={"result": one.result and as_seen(one.result, view, who)})
                for one in found.routers
            ]
        )

    @routes.post("/extensions/{identifier}/isolate", tags=["runtime"])
    async def isolate_extension(request: Request, identifier: ObjectId, who: Operator) -> RoutersAnswer:
        """Every call to it is refused in all running routers until it is reset, or they end. The audit log is
        told first.
        """
        return await act("isolate", identifier, request, who)

    @routes.post("/extensions/{identifier}/reset", tags=["runtime"])
    async def reset_extension(request: Request, identifier: ObjectId, who: Operator) -> RoutersAnswer:
        """Closes its breakers in all running routers, isolated ones too. The audit log is told first."""
        return await act("reset", identifier, request, who)

    async def act(verb: ActVerb, identifier: str, request: Request, who: Identity) -> RoutersAnswer:
        must_write_row(identifier, await catalogue.view(), who.tenants)
        how = How(who, request.state.request_id)
        return told(await act_on_routers(routers, verb, identifier, how), verb)

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
