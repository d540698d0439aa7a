"""The pages and their routes. Templates escape everything they are given; no page holds a script or a style
of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Depends, Query, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import RedirectResponse, Response

from beamline_contract.errors import ErrorCode
from beamline_contract.projection import ExtensionRecord, PolicyRecord, complexity
from beamline_registry.port import AuditQuery, Health, RegistryAudit

from ..access import needs
from ..api import contains
from ..catalogue import Catalogue, Page, View, page_of
from ..gate import SESSION_COOKIE, session_of
from ..identity import Authenticator, Identity, Role, Sessions, client_of
from ..pipeline import Stage, hints_of, match_of, stages_of
from ..problems import ProblemError

PAGE: Final = 25
"""Extensions, and policies, on one page."""
LAST_CHANGES: Final = 10
HEALTHY: Final = 95.0
"""Health score below which an extension needs attention."""
MAX_ATTENTION: Final = 20
"""Sentences in that list; with more than that, the first ones are the ones to begin with."""
_MAX_FORM_BYTES: Final = 4096
_STATIC: Final = {"inspector.css": "text/css", "icon.svg": "image/svg+xml"}

Text = Annotated[str, Query(max_length=253)]


@dataclass(frozen=True, slots=True)
class ExtensionRow:
    """One line of the table of extensions."""

    record: ExtensionRecord
    health: Health | None
    users: int
    """Policies that name it."""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One drawn policy."""

    record: PolicyRecord
    match: str
    stages: Sequence[Stage]
    complexity: int


class Pages:
    """Renders the inspector."""

    def __init__(
        self, catalogue: Catalogue, audit: RegistryAudit, tokens: Authenticator, sessions: Sessions
    ) -> None:
        self._catalogue = catalogue
        self._audit = audit
        self._tokens = tokens
        self._sessions = sessions
        self._templates = Environment(
            loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        # Jinja's own tojson writes < as an escape for scripts; here it is text, and autoescape sees to it.
        self._templates.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)

    def routes(self) -> APIRouter:
        """``/``, login and logout, and the two static files."""
        routes = APIRouter()

        @routes.get("/")
        async def overview(
            identity: Annotated[Identity, Depends(needs(Role.VIEWER))],
            q: Text = "",
            after: Text = "",
            policies_after: Text = "",
        ) -> Response:
            return await self._overview(identity, q, after, policies_after)

        @routes.get("/login")
        async def login_link(request: Request, token: Annotated[str, Query()] = "") -> Response:
            return await self._login(request, token) if token else self._html("login.html", 200, wrong=False)

        @routes.post("/login")
        async def login(request: Request) -> Response:
            fields = parse_qs((await _form(request)).decode("latin-1"))
            return await self._login(request, fields.get("token", [""])[0])

        @routes.post("/logout", dependencies=[Depends(needs(Role.VIEWER))])
        async def logout(request: Request) -> Response:
            self._sessions.close(session_of(request.scope) or "")
            response = RedirectResponse("/login", 303)
            response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
            return response

        for name, kind in _STATIC.items():
            routes.get(f"/static/{name}")(_static(name, kind))
        return routes

    def problem(self, error: ProblemError, request_id: str) -> Response:
        """A problem as a page."""
        return self._html("problem.html", error.status, problem=error.document(request_id))

    async def _overview(self, identity: Identity, text: str, after: str, policies_after: str) -> Response:
        view = await self._catalogue.view()
        extensions = page_of(
            view.extensions,
            after=after,
            limit=PAGE,
            keep=lambda one: contains(text, one.id, one.name, one.namespace, one.subject, one.type),
        )
        policies = page_of(
            view.policies,
            after=policies_after,
            limit=PAGE,
            keep=lambda one: contains(text, one.id, one.name, one.namespace),
        )
        users = _users(view)
        health = {one.extension_id: one for one in await self._audit.healths()}
        rows = [
            ExtensionRow(record, health.get(record.id), users.get(record.id, 0))
            for record in extensions.items
        ]
        drawn = [
            PolicyRow(
                record,
                match_of(record),
                stages_of(record, view),
                complexity(record.policy),
            )
            for record in policies.items
        ]
        return self._html(
            "overview.html",
            200,
            identity=identity,
            view=view,
            enabled=sum(one.enabled for one in view.extensions.values()),
            text=text,
            extensions=rows,
            more_extensions=_link(extensions, "after", q=text, policies_after=policies_after),
            policies=drawn,
            more_policies=_link(policies, "policies_after", q=text, after=after),
            attention=_attention(view, health.values()),
            changes=await self._audit.audit(AuditQuery(limit=LAST_CHANGES)),
            healthy=HEALTHY,
        )

    async def _login(self, request: Request, token: str) -> Response:
        identity = await self._tokens.verify(token, client_of(request.scope))
        if identity is None:
            return self._html("login.html", 401, wrong=True)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            SESSION_COOKIE,
            self._sessions.open(identity),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    def _html(self, template: str, status: int, **values: Any) -> Response:
        page = self._templates.get_template(template).render(values)
        return Response(page, status, media_type="text/html")


def _users(view: View) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for policy in view.policies.values():
        named = {node.id for stage in stages_of(policy, view) for node in (*stage.nodes, *stage.fallback)}
        for extension_id in named:
            counts[extension_id] = counts.get(extension_id, 0) + 1
    return counts


def _attention(view: View, health: Iterable[Health]) -> list[str]:
    """What somebody should look at, of all there is and not of this page alone: failing extensions first."""
    failing = [
        (one.score, one.extension_id) for one in health if one.score is not None and one.score < HEALTHY
    ]
    said = [
        f"extension {name}: health {score:.0f} % over the last five minutes"
        for score, name in sorted(failing)
    ]
    for policy in view.policies.values():
        said += [f"policy {policy.id}: {hint}" for hint in hints_of(policy, view)]
        if len(said) > MAX_ATTENTION:
            return [*said[:MAX_ATTENTION], "and more"]
    return said


def _link(page: Page[Any], name: str, **others: str) -> str | None:
    if page.next is None:
        return None
    return "/?" + urlencode({key: value for key, value in {**others, name: page.next}.items() if value})


def _static(name: str, kind: str) -> Any:
    content = (files(__package__) / "static" / name).read_bytes()

    async def static() -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "max-age=3600"})

    return static


async def _form(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_FORM_BYTES:
            raise ProblemError(ErrorCode.INVALID_ARGUMENT, "the form is too large", status=413)
    return body
