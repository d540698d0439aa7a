"""The operator's settings, from the environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .core.controller import RESYNC_S
from .core.settings import ReconcileSettings
from .edges.kopf_edge import SILENCE_S
from .edges.lease import DURATION_S, RENEW_S, RETRY_S
from .rbac import DEFAULT_LEASE

PATIENCE_S: Final = 0.5
"""Routers that are well report a change within a fraction of this (docs/performance.md)."""
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class OperatorSettings(BaseSettings):
    """Environment of the operator: prefix ``BEAMLINE_``, and the plain names that all components share."""

    model_config = SettingsConfigDict(
        env_prefix="BEAMLINE_", populate_by_name=True, extra="ignore", frozen=True, env_ignore_empty=True
    )

    database_url: str
    """PostgreSQL, as ``postgresql://user:password@host:port/beamline``."""
    namespaces: Annotated[str, NoDecode] = ""
    """Namespaces to serve, separated by commas; empty serves all."""
    kubeconfig: Annotated[str | None, Field(validation_alias="KUBECONFIG")] = None
    """Empty: the pod's ServiceAccount, else ``~/.kube/config``."""
    kube_context: str | None = None
    lease_namespace: str | None = None
    """Default: the operator's own namespace, else the first that it serves, else ``default``."""
    lease_name: str = DEFAULT_LEASE
    lease_duration_s: Annotated[float, Field(gt=0)] = DURATION_S
    lease_renew_s: Annotated[float, Field(gt=0)] = RENEW_S
    lease_retry_s: Annotated[float, Field(gt=0)] = RETRY_S
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    resync_s: Annotated[float, Field(gt=0)] = RESYNC_S
    watch_silence_s: Annotated[float, Field(gt=0)] = SILENCE_S
    """A watch without any event, bookmarks too, for so long is opened again."""
    workload_nats_url: str | None = None
    """NATS as workloads reach it; default: as the operator does."""
    workload_nats_credentials_file: str | None = None
    workload_log_level: str = "info"
    allowed_images: str = ""
    """Prefixes of images that workloads may use, separated by commas; empty allows all."""
    identity: str = ""
    nats_url: Annotated[str, Field(validation_alias="NATS_URL")] = "nats://127.0.0.1:4222"
    nats_credentials_file: Annotated[str | None, Field(validation_alias="NATS_CREDENTIALS_FILE")] = None
    metrics_port: Annotated[int, Field(validation_alias="METRICS_PORT", ge=0, le=65_535)] = 9090
    """0 chooses a free one."""
    metrics_host: str = "0.0.0.0"  # noqa: S104 -- probes come from outside the pod
    log_level: Annotated[str, Field(validation_alias="LOG_LEVEL")] = "info"
    log_silent: Annotated[bool, Field(validation_alias="LOG_SILENT")] = False

    @model_validator(mode="after")
    def _lease_times_fit(self) -> Self:
        """A leader that renews no sooner than others may take over would lose the Lease again and again."""
        if not self.lease_duration_s > self.lease_renew_s > self.lease_retry_s:
            raise ValueError(
                f"BEAMLINE_LEASE_DURATION_S ({self.lease_duration_s:g}) must be greater than "
                f"BEAMLINE_LEASE_RENEW_S ({self.lease_renew_s:g}), and that greater than "
                f"BEAMLINE_LEASE_RETRY_S ({self.lease_retry_s:g})"
            )
        return self

    @property
    def scope(self) -> tuple[str, ...]:
        """The namespaces to serve; empty for all."""
        return _words(self.namespaces)

    @property
    def own_identity(self) -> str:
        """Unique per process: the pod's name and the process id."""
        return self.identity or f"{socket.gethostname()}-{os.getpid()}"

    @property
    def own_lease(self) -> tuple[str, str]:
        """Namespace and name of the Lease to compete for."""
        namespace = self.lease_namespace
        if not namespace and _NAMESPACE_FILE.is_file():
            namespace = _NAMESPACE_FILE.read_text().strip()
        return namespace or (self.scope[0] if self.scope else "default"), self.lease_name

    def reconcile_settings(self, environment: Mapping[str, str]) -> ReconcileSettings:
        """What the core is told; ``OTEL_*`` of ``environment`` is passed on to workloads."""
        return ReconcileSettings(
            nats_url=self.workload_nats_url or self.nats_url,
            nats_credentials_file=self.workload_nats_credentials_file,
            log_level=self.workload_log_level,
            passed_env={name: value for name, value in environment.items() if name.startswith("OTEL_")},
            allowed_images=_words(self.allowed_images),
            patience_s=PATIENCE_S,
        )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
