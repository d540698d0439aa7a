"""What the reconcile core is told from outside, once, at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ReconcileSettings:
    """Settings of the core. Times are seconds.

    ``nats_url`` and ``nats_credentials_file`` are as a *workload* sees them, which need not be how the
    operator does. ``passed_env`` is handed to every workload as it is (``OTEL_*``). An empty
    ``allowed_images`` allows every image; an entry is a prefix such as ``ghcr.io/beamline/``.
    """

    nats_url: str = "nats://127.0.0.1:4222"
    nats_credentials_file: str | None = None
    log_level: str = "info"
    log_silent: bool = False
    metrics_port: int = 9090
    """Port that a workload serves health and metrics on (contract.md, "What a workload gets")."""
    passed_env: Mapping[str, str] = field(default_factory=dict)
    allowed_images: tuple[str, ...] = ()
    workload_poll_s: float = 5.0
    """How soon an unfinished rollout is looked at again where no event announces its end."""
    canary_poll_s: float = 5.0
    """How often a canary that is under way is looked at; routers report as often."""
    patience_s: float = 0.0
    """How long the status of a row that was just written waits for the routers that are about to report it:
    one write of status then says what would take three. 0 writes at once.
    """
    blocked_poll_s: float = 30.0
    """How soon an object is looked at again that a row without an object, or a foreign Deployment, keeps out,
    or whose pods can't run.
    """
