"""``/``: health at a glance, traffic and errors, and what needs attention."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from beamline_registry.port import AuditQuery

from ...access import Viewer
from ...shapes import health_word
from ..attention import attention
from ..charts import Chart, Moment, traffic_charts
from ..look import breakers_of
from ..traffic import Traffic
from ..words import seen_history

if TYPE_CHECKING:
    from ..site import Site

LAST_CHANGES: Final = 10
CHART_S: Final = 1800.0
"""The time that a chart shows; what was before the first sample is left empty."""


def routes(site: Site) -> APIRouter:
    """``/``."""
    found = APIRouter()

    @found.get("/")
    async def overview(request: Request, identity: Viewer) -> Response:
        look = site.sources.look(identity)
        digest = await look.digest()
        health, routers, objects, changes = await asyncio.gather(
            look.health(),
            look.routers(),
            look.objects(),
            look.audit(AuditQuery(limit=LAST_CHANGES, only=seen_history(digest, look.whole))),
        )
        words = Counter(health_word(health[key]) if key in health else "no_data" for key in digest.extensions)
        breakers = breakers_of(routers or ())
        traffic = await look.traffic()
        return site.page(
            request,
            "overview.html",
            identity,
            digest=digest,
            words=words,
            enabled=sum(one.enabled for one in digest.extensions.values()),
            routers=routers,
            behind=sum(0 < one.revision < digest.revision for one in routers or ()),
            open_breakers=sum(
                one.state != "closed" for key, one in breakers.items() if key in digest.extensions
            ),
            hinted=sum(1 for _ in digest.hinted()),
            attention=attention(digest, health, routers or () if look.whole else (), breakers, objects),
            changes=changes,
            traffic=traffic,
            charts=_charts(traffic),
            **look.words(),
        )

    return found


def _charts(traffic: Traffic) -> dict[str, Chart]:
    seconds = traffic.interval_seconds
    moments = [
        Moment(one.requests / seconds, one.errors / seconds, one.p50_ms, one.p99_ms)
        for one in traffic.samples
    ]
    return traffic_charts(moments, round(CHART_S / seconds))
