"""``/``: health at a glance, traffic and errors, and what needs attention."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from beamline_registry.port import AuditQuery

from ...access import Viewer
from ...shapes import health_word
from ..attention import attention
from ..charts import chart
from ..look import breakers_of
from ..traffic import Sample, Traffic
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
            **_charts(traffic),
            **look.words(),
        )

    return found


def _charts(traffic: Traffic) -> dict[str, Any]:
    seconds, samples = traffic.interval_seconds, traffic.samples
    unknown = [None] * max(0, round(CHART_S / seconds) - len(samples))

    def values(read: Callable[[Sample], float | None]) -> list[float | None]:
        return [*unknown, *map(read, samples)]

    return {
        "rate": chart(("requests per second", "plain", values(lambda one: one.requests / seconds))),
        "errors": chart(("errors per second", "bad", values(lambda one: one.errors / seconds))),
        "latency": chart(
            ("p99", "plain", values(lambda one: one.p99_ms)),
            ("p50", "soft", values(lambda one: one.p50_ms)),
        ),
    }
