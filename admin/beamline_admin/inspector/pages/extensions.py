"""``/extensions`` and ``/extensions/{id}``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from beamline_contract.names import EXTENSION_TYPES, object_id
from beamline_contract.objects import ObjectKey
from beamline_contract.projection import ExtensionRecord, breaker_settings, effective_failure_mode
from beamline_registry.changes import masked
from beamline_registry.port import AuditQuery, Health

from ...access import ObjectId, Viewer
from ...api import found as must_be
from ...live.traffic import MAX_POINTS
from ...objects.port import Held
from ...shapes import health_word
from ..charts import Moment, traffic_charts
from ..digest import Digest
from ..fields import fields_of
from ..look import Breaker, breakers_of
from ..rollout import rollout_of
from ..rows import Rows, RowsQuery
from ..traffic import Count
from ..words import BREAKER_LOOKS, Badge, condition_badge, health_badge, replicas_of

if TYPE_CHECKING:
    from ..site import Site

LAST_CHANGES: Final = 20
State = Literal["", "attention", "healthy", "degraded", "failing", "no_data", "disabled", "open"]
STATES: Final[Mapping[str, str]] = {
    "": "Any state",
    "attention": "Needs attention",
    "healthy": "Healthy",
    "degraded": "Degraded",
    "failing": "Failing",
    "no_data": "No calls",
    "open": "Breaker not closed",
    "disabled": "Disabled",
}


class ExtensionsQuery(RowsQuery):
    """Which extensions."""

    type: Annotated[str, Query(max_length=64)] = ""
    state: State = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    record: ExtensionRecord
    health: Badge
    breaker: Badge | None
    replicas: str
    count: Count | None
    users: int
    versions: int


def routes(site: Site) -> APIRouter:
    """``/extensions`` and what is below."""
    found = APIRouter()

    @found.get("/extensions")
    async def extensions(
        request: Request, identity: Viewer, query: Annotated[ExtensionsQuery, Query()]
    ) -> Response:
        look = site.sources.look(identity)
        digest = await look.digest()
        health, routers, objects = await asyncio.gather(look.health(), look.routers(), look.objects())
        breakers, held = breakers_of(routers or ()), {one.id: one for one in objects.values()}
        traffic = await look.traffic()
        text = query.q.casefold()
        wanted = [
            record
            for record in digest.extensions.values()
            if query.type in {"", record.type}
            and _has_text(record, text)
            and _is(query.state, record, health.get(record.id), breakers.get(record.id))
        ]
        rows = Rows.of(wanted, query)
        return site.page(
            request,
            "extensions.html" if query.part is None else "extensions_rows.html",
            identity,
            digest=digest,
            rows=rows,
            items=[
                Row(
                    record,
                    health_badge(health.get(record.id)),
                    breaker_badge(breakers.get(record.id)),
                    replicas_of(held.get(record.id)),
                    traffic.extensions.get(record.id),
                    len(digest.users.get(record.id, ())),
                    len(digest.versions.get(record.id, ())),
                )
                for record in rows.items
            ],
            measured=traffic.known,
            types=EXTENSION_TYPES,
            states=STATES,
            **look.words(),
        )

    @found.get("/extensions/{identifier}")
    async def extension(request: Request, identity: Viewer, identifier: ObjectId) -> Response:
        look = site.sources.look(identity)
        digest = await look.digest()
        record = digest.extensions.get(identifier)
        if record is None and look.registry_fails:
            return site.page(request, "unknown.html", identity, 503, what=identifier, **look.words())
        record = must_be(record, "extension", "/extensions")
        health, routers, held, changes = await asyncio.gather(
            look.health(),
            look.routers(),
            look.held(ObjectKey("Extension", record.namespace, record.name)),
            look.audit(AuditQuery("Extension", identifier, limit=LAST_CHANGES)),
        )
        events = await look.events(held) if held is not None else None
        breaker = breakers_of(routers or ()).get(identifier)
        traffic = await look.traffic()
        moments = [Moment(*point) for point in site.parts.watcher.points(identifier)]
        return site.page(
            request,
            "extension.html",
            identity,
            record=record,
            held=held,
            conditions=_conditions(held),
            health=health.get(identifier),
            health_badge=health_badge(health.get(identifier)),
            breaker=breaker,
            breaker_badge=breaker_badge(breaker),
            breaker_settings=breaker_settings(record).model_dump(),
            breaker_looks=BREAKER_LOOKS,
            routers=routers if look.whole else None,
            count=traffic.extensions.get(identifier),
            measured=traffic.known,
            charts=traffic_charts(moments, MAX_POINTS),
            replicas=replicas_of(held),
            failure_mode=effective_failure_mode(record),
            fields=fields_of(masked("", record.config), record.spec.get("configSchema")),
            notes=masked("", record.metadata),
            rollout=rollout_of(held),
            versions=_versions(record, digest),
            users=[digest.lines[name] for name in digest.users.get(identifier, ())],
            changes=changes,
            events=events,
            reported=dict(held.document.get("status") or {}) if held is not None else {},
            **look.words(),
        )

    return found


def breaker_badge(breaker: Breaker | None) -> Badge | None:
    """The worst of its breakers; None where no router has used one, or nobody can ask."""
    if breaker is None:
        return None
    where = f"{breaker.open} of {len(breaker.routers)} routers" if breaker.state != "closed" else ""
    return Badge(BREAKER_LOOKS.get(breaker.state, "warn"), breaker.state, where)


def _has_text(record: ExtensionRecord, text: str) -> bool:
    return not text or any(
        text in value.casefold()
        for value in (record.id, record.name, record.namespace, record.subject, record.type)
    )


def _is(state: str, record: ExtensionRecord, health: Health | None, breaker: Breaker | None) -> bool:
    word = health_word(health) if health is not None else "no_data"
    not_closed = breaker is not None and breaker.state != "closed"
    if state == "attention":
        return not_closed or word in {"degraded", "failing"}
    if state == "open":
        return not_closed
    if state == "disabled":
        return not record.enabled
    return state in {"", word}


def _conditions(held: Held | None) -> Sequence[tuple[Mapping[str, Any], Badge]]:
    status = held.document.get("status") or {} if held is not None else {}
    return [(dict(one), condition_badge(one)) for one in status.get("conditions") or ()]


def _versions(record: ExtensionRecord, digest: Digest) -> list[ExtensionRecord]:
    """The base and its versions, where there is more than one of them."""
    stated = record.spec.get("versionOf")
    base = object_id(str(stated)) if stated else record.id
    ids = [base, *digest.versions.get(base, ())]
    found = [digest.extensions[one] for one in ids if one in digest.extensions]
    return found if len(found) > 1 else []
