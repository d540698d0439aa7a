"""``/audit``: who changed what, when."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from beamline_registry.port import AuditQuery

from ...access import Viewer
from ...identity import Role
from ..words import seen_history

if TYPE_CHECKING:
    from ..site import Site

PAGE: Final = 50
ACTIONS: Final = ("created", "updated", "deleted", "enabled", "disabled")
_MAX_SEQUENCE: Final = 2**63 - 1


class AuditPageQuery(BaseModel):
    """Which changes. ``q`` is looked for in object, action, who and request id."""

    q: Annotated[str, Field(max_length=253)] = ""
    kind: Literal["", "Extension", "RoutingPolicy"] = ""
    action: Literal["", "created", "updated", "deleted", "enabled", "disabled"] = ""
    object: Annotated[str, Field(max_length=253)] = ""
    before: Annotated[int | None, Field(ge=1, le=_MAX_SEQUENCE)] = None

    def asked(self, only: Collection[str] | None) -> AuditQuery:
        """As the registry takes it. PostgreSQL knows no U+0000, so nothing holds one."""
        text = self.q.replace("\0", "\N{REPLACEMENT CHARACTER}")
        name = self.object.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return AuditQuery(
            self.kind or None,
            name or None,
            self.before,
            PAGE + 1,
            text=text or None,
            action=self.action or None,
            only=only,
        )


def routes(site: Site) -> APIRouter:
    """``/audit``."""
    found = APIRouter()

    @found.get("/audit")
    async def audit(
        request: Request, identity: Viewer, query: Annotated[AuditPageQuery, Query()]
    ) -> Response:
        look = site.sources.look(identity)
        digest = await look.digest()
        read = await look.audit(query.asked(seen_history(digest, look.whole)))
        rows, older = read[:PAGE], read[PAGE - 1].sequence if len(read) > PAGE else None
        kept = query.model_dump(exclude={"before"}, exclude_defaults=True)
        return site.page(
            request,
            "audit.html",
            identity,
            rows=rows,
            actions=ACTIONS,
            exports=look.whole and identity.role.covers(Role.OPERATOR),
            newest=f"/audit?{urlencode(kept)}" if query.before is not None else None,
            older=f"/audit?{urlencode({**kept, 'before': older})}" if older is not None else None,
            **look.words(),
        )

    return found
