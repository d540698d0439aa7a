"""``/audit``: who changed what, when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from beamline_registry.port import AuditQuery, AuditRecord

from ...access import Viewer
from ..digest import Digest
from ..look import Look
from ..words import visible_rows

if TYPE_CHECKING:
    from ..site import Site

PAGE: Final = 50
MAX_READ: Final = 2_000
"""Rows read for one page of somebody who is bound to tenants: most rows may not be theirs."""
ACTIONS: Final = ("created", "updated", "deleted", "enabled", "disabled")
_MAX_SEQUENCE: Final = 2**63 - 1


class AuditPageQuery(BaseModel):
    """Which changes. ``q`` is looked for in object, action, who and request id."""

    q: Annotated[str, Field(max_length=253)] = ""
    kind: Literal["", "Extension", "RoutingPolicy"] = ""
    action: Literal["", "created", "updated", "deleted", "enabled", "disabled"] = ""
    object: Annotated[str, Field(max_length=253)] = ""
    before: Annotated[int | None, Field(ge=1, le=_MAX_SEQUENCE)] = None

    def asked(self, before: int | None, limit: int) -> AuditQuery:
        """As the registry takes it. PostgreSQL knows no U+0000, so nothing holds one."""
        text = self.q.replace("\0", "\N{REPLACEMENT CHARACTER}")
        name = self.object.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return AuditQuery(
            self.kind or None, name or None, before, limit, text=text or None, action=self.action or None
        )


def routes(site: Site) -> APIRouter:
    """``/audit``."""
    found = APIRouter()

    @found.get("/audit")
    async def audit(
        request: Request, identity: Viewer, query: Annotated[AuditPageQuery, Query()]
    ) -> Response:
        look = site.sources.look(identity)
        rows, older = await _rows(look, await look.digest(), query)
        kept = query.model_dump(exclude={"before"}, exclude_defaults=True)
        return site.page(
            request,
            "audit.html",
            identity,
            rows=rows,
            actions=ACTIONS,
            newest=f"/audit?{urlencode(kept)}" if query.before is not None else None,
            older=f"/audit?{urlencode({**kept, 'before': older})}" if older is not None else None,
            **look.words(),
        )

    return found


async def _rows(look: Look, digest: Digest, query: AuditPageQuery) -> tuple[list[AuditRecord], int | None]:
    """A page of rows that are seen, and before which sequence the next page begins."""
    limit = PAGE + 1 if look.whole else MAX_READ
    read = await look.audit(query.asked(query.before, limit))
    seen = visible_rows(read, digest, look.whole)
    if len(seen) > PAGE:
        return seen[:PAGE], seen[PAGE - 1].sequence
    return seen, read[-1].sequence if len(read) == limit else None
