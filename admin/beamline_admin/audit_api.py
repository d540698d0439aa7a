"""``/api/v1/audit``: the audit log, in pages and, under ``/export``, as lines of JSON.

The log only grows at its end, so reading it by sequence number needs no transaction that stays open: whoever
reads slowly holds nothing of the database. Rows that come while an export runs are not in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from beamline_contract.objects import Kind
from beamline_registry.audit_log import to_line
from beamline_registry.port import AuditQuery, RegistryAudit

from . import shapes
from .access import Operator, Viewer
from .api import DEFAULT_LIMIT, Limit
from .catalogue import Catalogue, View
from .identity import Identity
from .scope import Scope, ids_of_row, tenants_of

MEDIA_TYPE: Final = "application/x-ndjson"
PAGE: Final = 500
_MAX_SEQUENCE: Final = 2**63 - 1
_LINE_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "description": "An `AuditItem` on each line, oldest first.",
}


class ExportQuery(BaseModel):
    """Which changes; only an export of all of them can be verified."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind | None = None
    object_id: Annotated[str | None, Field(min_length=1, max_length=253, pattern=r"^[^\x00]*$")] = None
    q: Annotated[
        str,
        Field(
            max_length=200, pattern=r"^[^\x00]*$", description="Only with this text in object, who or what."
        ),
    ] = ""


class ChangeQuery(ExportQuery):
    """Which changes, and which part of them."""

    before: Annotated[
        int | None, Field(ge=1, le=_MAX_SEQUENCE, description="Only older than this sequence number: `next`.")
    ] = None
    limit: Limit = DEFAULT_LIMIT


def audit_api(catalogue: Catalogue, audit: RegistryAudit) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/audit", tags=["audit"])
    async def list_changes(who: Viewer, query: Annotated[ChangeQuery, Query()]) -> shapes.AuditPage:
        """Changes of objects, newest first, also of objects that are gone. Who is bound to tenants sees those
        of objects that concern them now.
        """
        only = None if who.tenants is None else seen_uids(await catalogue.view(), who)
        rows = await audit.audit(
            AuditQuery(query.kind, query.object_id, query.before, query.limit + 1, query.q, only=only)
        )
        more = len(rows) > query.limit
        items = [shapes.AuditItem.model_validate(asdict(row)) for row in rows[: query.limit]]
        return shapes.AuditPage(items=items, next=items[-1].sequence if more else None)

    @routes.get(
        "/audit/export",
        tags=["audit"],
        response_class=StreamingResponse,
        responses={200: {"description": "Lines of JSON", "content": {MEDIA_TYPE: {"schema": _LINE_SCHEMA}}}},
    )
    async def export_changes(who: Operator, query: Annotated[ExportQuery, Query()]) -> StreamingResponse:
        """Every change as a line of JSON, oldest first, as `beamline audit export` writes it."""
        Scope(who.tenants).must_be_whole()
        newest = await audit.audit(AuditQuery(limit=1))
        asked = AuditQuery(query.kind, query.object_id, limit=PAGE, text=query.q, after=0)
        last = newest[0].sequence if newest else 0
        return StreamingResponse(
            _lines(audit, asked, last),
            media_type=MEDIA_TYPE,
            headers={"content-disposition": 'attachment; filename="beamline-audit.jsonl"'},
        )

    return routes


def seen_uids(view: View, who: Identity) -> list[str]:
    """The objects that ``who`` may see: by uid, because a name may have been somebody else's before. Policies
    are read once.
    """
    scope = Scope(who.tenants)
    policies = [policy for policy in view.policies.values() if scope.sees([tenants_of(policy)])]
    used = {identifier for policy in policies for identifier in ids_of_row(policy.policy)}
    return [
        *(policy.uid for policy in policies),
        *(view.extensions[identifier].uid for identifier in used & view.extensions.keys()),
    ]


async def _lines(audit: RegistryAudit, asked: AuditQuery, last: int) -> AsyncIterator[bytes]:
    after = 0
    while after < last:
        rows = await audit.audit(replace(asked, after=after, before=last + 1))
        if rows:
            yield b"".join(map(to_line, rows))
        if len(rows) < PAGE:
            return
        after = rows[-1].sequence
