"""Logging a browser in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import RedirectResponse, Response

from beamline_contract.errors import ErrorCode

from ..access import needs
from ..gate import SESSION_COOKIE, session_of
from ..identity import Role, client_of
from ..problems import ProblemError

if TYPE_CHECKING:
    from .site import Site

MAX_FORM_BYTES: Final = 4096


def login_routes(site: Site) -> APIRouter:
    """``/login`` and ``/logout``."""
    routes = APIRouter()

    @routes.get("/login")
    async def login_link(request: Request, token: Annotated[str, Query()] = "") -> Response:
        return await _login(site, request, token) if token else site.html("login.html", 200, wrong=False)

    @routes.post("/login")
    async def login(request: Request) -> Response:
        fields = parse_qs((await read_form(request)).decode("latin-1"))
        return await _login(site, request, fields.get("token", [""])[0])

    @routes.post("/logout", dependencies=[Depends(needs(Role.VIEWER))])
    async def logout(request: Request) -> Response:
        site.sessions.close(session_of(request.scope) or "")
        response = RedirectResponse("/login", 303)
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
        return response

    return routes


async def _login(site: Site, request: Request, token: str) -> Response:
    identity = await site.tokens.verify(token, client_of(request.scope))
    if identity is None:
        return site.html("login.html", 401, wrong=True)
    response = RedirectResponse("/", 303)
    response.set_cookie(
        SESSION_COOKIE,
        site.sessions.open(token),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


async def read_form(request: Request, limit: int = MAX_FORM_BYTES) -> bytes:
    """The body of a form, at most ``limit`` bytes. Raises :class:`ProblemError`."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise ProblemError(ErrorCode.INVALID_ARGUMENT, "the form is too large", status=413)
    return body
