"""What every page is made with: templates, who looks, where one is. Templates escape everything they are
given; no page holds a script or a style of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from beamline_registry.port import RegistryAudit

from ..catalogue import Catalogue
from ..gate import session_of
from ..identity import Authenticator, Identity, Role, Sessions
from ..live.watcher import Watcher
from ..page_calls import page_word
from ..problems import ProblemError
from ..routers import Routers
from ..writing import Writer
from . import spelling
from .login import login_routes
from .look import Sources
from .nav import entries
from .pages import PAGES
from .static_files import STATIC, StaticFile

_WHOLE: Final = frozenset({"routers", "breakers", "traffic"})
"""Topics about all tenants at once."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What pages ask. ``routers`` None: this process was not told where NATS is."""

    catalogue: Catalogue
    audit: RegistryAudit
    writer: Writer
    routers: Routers | None
    watcher: Watcher


def utc_now() -> datetime:
    """The wall clock: only for "how long ago"."""
    return datetime.now(UTC)


class Site:
    """Renders the inspector. ``clock`` is the wall clock, for relative times, ``monotonic``
    seconds are for what is kept."""

    def __init__(
        self,
        parts: Parts,
        tokens: Authenticator,
        sessions: Sessions,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.parts = parts
        self.sources = Sources(
            parts.catalogue,
            parts.audit,
            parts.writer,
            parts.routers,
            clock=monotonic,
            traffic=parts.watcher.traffic,
        )
        self.tokens = tokens
        self.sessions = sessions
        self.clock = clock
        self._paths: set[str] = set()
        self._templates = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            # Jinja's own tojson writes < as an escape for scripts; here it is text, and autoescape does it.
            "json": spelling.as_json,
            "exact": spelling.exact,
            "ago": lambda text: spelling.ago(text, self.clock()),
            "figure": spelling.figure,
            "who": spelling.who,
            "allowed": _allowed,
            "millis": spelling.millis,
        }
        self._templates.globals |= {
            "share": spelling.share,
            "many": spelling.many,
            "NOTHING": spelling.NOTHING,
        }

    def routes(self) -> APIRouter:
        """All pages, login and logout, and the static files."""
        routes = APIRouter()
        for page in PAGES:
            own = page.routes(self)
            self._paths |= {getattr(route, "path", "") for route in own.routes}
            routes.include_router(own)
        routes.include_router(login_routes(self))
        for path, file in STATIC.items():
            routes.get(path)(_static(file))
        return routes

    def page(
        self, request: Request, template: str, identity: Identity, /, status: int = 200, **values: Any
    ) -> Response:
        """A page of ``identity``. Templates also get ``here`` (path), ``query`` (the parameters), ``nav``,
        ``may(role)`` (whether the identity covers it), ``link(parameter=value)`` (this page, changed) and
        ``word`` (what forms show, see :mod:`..page_calls`).
        """
        return self.html(
            template,
            status,
            identity=identity,
            here=request.url.path,
            query=dict(request.query_params),
            nav=entries(self._paths),
            may=lambda role: identity.role.covers(Role(role)),
            link=lambda **changed: _link(request, changed),
            word=page_word(session_of(request.scope) or ""),
            **values,
        )

    def html(self, template: str, status: int, **values: Any) -> Response:
        """A page for anybody."""
        text = self._templates.get_template(template).render(
            {"identity": None, "nav": (), "here": "", "query": {}, **values}
        )
        return Response(text, status, media_type="text/html")

    def problem(self, request: Request, error: ProblemError, request_id: str) -> Response:
        """A problem as a page, with the ways out of it where somebody is logged in."""
        identity: Identity | None = getattr(request.state, "identity", None)
        document = error.document(request_id)
        if identity is None:
            return self.html("problem.html", error.status, problem=document)
        return self.page(request, "problem.html", identity, error.status, problem=document)


def _allowed(topics: str, identity: Identity | None) -> str:
    """The topics of a page that somebody may listen to: one that is denied would deny them all."""
    if identity is None:
        return ""
    denied = _WHOLE if identity.tenants is not None else frozenset()
    return " ".join(topic for topic in topics.split() if topic not in denied)


def _link(request: Request, changed: Mapping[str, object]) -> str:
    """This page with other parameters; None takes one out."""
    asked: dict[str, object] = {**request.query_params, **changed}
    kept = {name: value for name, value in asked.items() if value not in {None, ""}}
    return request.url.path + (f"?{urlencode(kept)}" if kept else "")


def _static(file: StaticFile) -> Any:
    headers = {"cache-control": "no-cache", "etag": file.tag}

    async def static(request: Request) -> Response:
        if request.headers.get("if-none-match") == file.tag:
            return Response(None, 304, headers)
        return Response(file.content, 200, headers, file.media_type)

    return static
