"""``/routers``: what runs, at which revision, and what it refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import Response

from ...access import Viewer

if TYPE_CHECKING:
    from ..site import Site


def routes(site: Site) -> APIRouter:
    """``/routers``."""
    found = APIRouter()

    @found.get("/routers")
    async def routers(request: Request, identity: Viewer) -> Response:
        look = site.sources.look(identity)
        digest = await look.digest()
        return site.page(
            request,
            "routers.html",
            identity,
            digest=digest,
            routers=await look.routers() if look.whole else None,
            **look.words(),
        )

    return found
