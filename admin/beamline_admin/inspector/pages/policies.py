"""``/policies`` and ``/policies/{id}``: which requests go which way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from beamline_contract.objects import ObjectKey
from beamline_contract.projection import COMPLEXITY_WARNING
from beamline_registry.changes import masked
from beamline_registry.port import AuditQuery

from ...access import ObjectId, Viewer
from ...api import found as must_be
from ..digest import Line
from ..drawing import drawing_of, summary_of
from ..look import breakers_of
from ..rows import Rows, RowsQuery
from ..traffic import PolicyCount
from ..words import condition_badge, health_badge
from .extensions import breaker_badge

if TYPE_CHECKING:
    from ..site import Site

LAST_CHANGES: Final = 20


class PoliciesQuery(RowsQuery):
    """Which policies. ``tenant`` names one that they take requests of."""

    tenant: Annotated[str, Query(max_length=128)] = ""
    state: Literal["", "attention"] = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    line: Line
    summary: list[tuple[str, int, int]]
    hints: list[str]
    counted: PolicyCount | None


def routes(site: Site) -> APIRouter:
    """``/policies`` and what is below."""
    found = APIRouter()

    @found.get("/policies")
    async def policies(
        request: Request, identity: Viewer, query: Annotated[PoliciesQuery, Query()]
    ) -> Response:
        look = site.sources.look(identity)
        digest = await look.digest()
        text, traffic = query.q.casefold(), await look.traffic()
        wanted = [
            line
            for line in digest.lines.values()
            if (not text or text in line.text)
            and (not query.tenant or not line.tenants or query.tenant in line.tenants)
            and (not query.state or line.complex or any(map(digest.fault, line.ids)))
        ]
        rows = Rows.of(wanted, query)
        return site.page(
            request,
            "policies.html" if query.part is None else "policies_rows.html",
            identity,
            digest=digest,
            rows=rows,
            items=[
                Row(line, summary_of(line), digest.hints(line), traffic.policies.get(line.record.id))
                for line in rows.items
            ],
            measured=traffic.known,
            **look.words(),
        )

    @found.get("/policies/{identifier}")
    async def policy(request: Request, identity: Viewer, identifier: ObjectId) -> Response:
        look = site.sources.look(identity)
        digest = await look.digest()
        line = digest.lines.get(identifier)
        if line is None and look.registry_fails:
            return site.page(request, "unknown.html", identity, 503, what=identifier, **look.words())
        record = must_be(line.record if line is not None else None, "policy", "/policies")
        assert line is not None, "there is a record only with its line"
        health, routers, held, changes = await asyncio.gather(
            look.health(),
            look.routers(),
            look.held(ObjectKey("RoutingPolicy", record.namespace, record.name)),
            look.audit(AuditQuery("RoutingPolicy", identifier, limit=LAST_CHANGES)),
        )
        breakers, traffic = breakers_of(routers or ()), await look.traffic()
        counted = traffic.policies.get(identifier) if traffic.known else None
        status = held.document.get("status") or {} if held is not None else {}
        return site.page(
            request,
            "policy.html",
            identity,
            line=line,
            record=record,
            held=held,
            drawing=drawing_of(line, digest, counted),
            counted=counted,
            measured=traffic.known,
            hints=digest.hints(line),
            warnings=status.get("warnings") or (),
            threshold=COMPLEXITY_WARNING,
            health={one: health_badge(health.get(one)) for one in line.ids},
            breakers={one: breaker_badge(breakers.get(one)) for one in line.ids},
            conditions=[(dict(one), condition_badge(one)) for one in status.get("conditions") or ()],
            document=masked("", record.policy),
            changes=changes,
            **look.words(),
        )

    return found
