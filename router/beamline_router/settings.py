"""What a router process is told from outside: environment variables, or arguments of the same names in
code.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from .edges.refresh import DEFAULT_POLL_S
from .edges.serving import DEFAULT_LIMIT
from .edges.trails import DEFAULT_KEPT


def _either(name: str) -> Any:
    """``NATS_URL``, as every workload has it, or ``BEAMLINE_NATS_URL``."""
    return AliasChoices(f"BEAMLINE_{name}", name)


def new_instance() -> str:
    """Unique per process start: host name (the pod's, in a cluster), process id, a random part."""
    return f"{socket.gethostname()[:63]}-{os.getpid()}-{uuid4().hex[:8]}"


class RouterSettings(BaseSettings):
    """Variables are ``BEAMLINE_`` and the field's name; those of NATS and logging also go without the
    prefix.
    """

    model_config = SettingsConfigDict(
        env_prefix="BEAMLINE_", validate_by_name=True, validate_by_alias=True, extra="ignore", frozen=True
    )

    nats_url: Annotated[str, Field(validation_alias=_either("NATS_URL"))] = "nats://127.0.0.1:4222"
    nats_credentials_file: Annotated[str | None, Field(validation_alias=_either("NATS_CREDENTIALS_FILE"))] = (
        None
    )
    transport: Literal["fast", "plain"] = "fast"
    """What carries requests over the NATS connection: the router's own hot path, or nats-py alone."""
    database_url: str = "postgresql://127.0.0.1:5432/beamline"
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """0 chooses a free port."""
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] = DEFAULT_POLL_S
    """How often the registry is read without a hint, give or take 20 %."""
    snapshot_file: Path | None = None
    """Where the last good table is kept for a start without PostgreSQL; none: not kept."""
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = DEFAULT_LIMIT
    """Requests served at a time; above, RESOURCE_EXHAUSTED."""
    api_keys: Path | None = None
    """A file, or a folder as a Secret is mounted, with the keys of callers; none: only loopback is served."""
    anonymous: bool = False
    """Serve callers without a key over HTTP, from anywhere: for networks that decide themselves who may call.
    """
    nats_keys: Literal["optional", "required"] = "optional"
    """Whether requests over NATS need a key too; NATS itself decides who may publish them."""
    limits_file: Path | None = None
    """Limits by tenant; they go before the three below."""
    tenant_requests_per_second: Annotated[float | None, Field(ge=0.001, le=1_000_000)] = None
    tenant_burst: Annotated[float | None, Field(ge=1, le=1_000_000)] = None
    tenant_concurrency: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """Limits of every tenant without its own; none: no limit. A burst is a second's worth where not stated.
    """
    access_log: bool = True
    """One JSON line per request at level info."""
    trails: Annotated[int, Field(ge=0, le=100_000)] = DEFAULT_KEPT
    """Requests whose trails are kept for `beamline trace`, and as many again that failed or were slow. About
    2 KiB each, without content.
    """
    trail_content: bool = False
    """Let a watch of the admin API see prompts and answers, for as long as it lasts."""
    access_log_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the requests that have a line; errors always have one."""
    trace_tail: bool = True
    """Where traces are on: keep the trace of a request that failed or was slow, whatever the sampler says."""
    trace_slow_ms: Annotated[float, Field(gt=0, le=3_600_000)] = 10_000.0
    """From here on a request is slow for ``trace_tail``."""
    grace_seconds: Annotated[float, Field(gt=0, le=600)] = 25.0
    """How long a shutdown waits for requests under way. Kubernetes kills after 30 s by default."""
    instance: str = Field(default_factory=new_instance, min_length=1, max_length=128)
    log_level: Annotated[str, Field(validation_alias=_either("LOG_LEVEL"))] = "info"
    log_silent: Annotated[bool, Field(validation_alias=_either("LOG_SILENT"))] = False

    @property
    def logs_requests(self) -> bool:
        """Whether the access log is on, under the log level given."""
        return self.access_log and not self.log_silent and self.log_level.lower() in _REQUEST_LEVELS


_REQUEST_LEVELS: Final = frozenset({"debug", "info"})
