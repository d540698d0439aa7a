"""Metrics of the admin process, and its probes. Labels are bounded: routes as they are declared, known
methods only.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import structlog
from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from pydantic import BaseModel

from beamline_registry.port import RegistryError

from .catalogue import Catalogue

log = structlog.get_logger()

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Telemetry:
    """The metrics, in a collector registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "beamline_admin_requests_total",
            "Requests answered.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "beamline_admin_request_duration_seconds",
            "Time from a request's arrival to the end of its answer.",
            ["route"],
            registry=self.registry,
        )
        self._revision = Gauge(
            "beamline_admin_registry_revision", "Registry revision last seen.", registry=self.registry
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts one answer. ``route`` is a declared path, or ``other``."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def revision(self, revision: int) -> None:
        """Notes the registry's revision."""
        self._revision.set(revision)


class ProbeAnswer(BaseModel):
    """What a probe answers: 200 with ``ok``, or 503 with ``failing`` and the reason."""

    status: Literal["ok", "failing"]
    reason: str | None = None


def probes(catalogue: Catalogue, telemetry: Telemetry) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``: for machines, without a token, and without a word about
    objects.
    """
    routes = APIRouter(tags=["probes"])

    @routes.get("/healthz", response_model_exclude_none=True)
    async def healthz() -> ProbeAnswer:
        """The process runs and its loop turns."""
        return ProbeAnswer(status="ok")

    @routes.get("/readyz", response_model_exclude_none=True, responses={503: {"model": ProbeAnswer}})
    async def readyz(response: Response) -> ProbeAnswer:
        """The registry answers."""
        try:
            view = await catalogue.view()
        except RegistryError as error:
            log.warning("admin.registry_unavailable", error=str(error))
            response.status_code = 503
            return ProbeAnswer(status="failing", reason="the registry does not answer")
        telemetry.revision(view.revision)
        return ProbeAnswer(status="ok")

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        text = await asyncio.to_thread(generate_latest, telemetry.registry)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    return routes
