"""What a workload gets from its environment (contract: "What a workload gets")."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from beamline_contract.names import ExtensionType, derive_subject, subject_fault

from .extension import Extension
from .logs import LEVELS

CONCURRENCY: Final = 256
"""Requests that one process works on at the same time. A router keeps at most ``spec.concurrency`` (64) in
flight to
one extension; this leaves room for several routers."""
BACKLOG: Final = 1024
"""Requests that may wait for a free place; further ones are answered with RESOURCE_EXHAUSTED at once."""
GRACE_S: Final = 25.0
"""Time to finish what is in flight after SIGTERM, below Kubernetes' default of 30 s for the whole pod."""


class SettingsError(ValueError):
    """The environment is not usable; the message is one sentence per variable."""


class RuntimeSettings(BaseSettings):
    """Settings of one extension process. Every default suits a run by hand on a laptop.

    An empty variable counts as unset.
    """

    model_config = SettingsConfigDict(
        populate_by_name=True, extra="ignore", frozen=True, env_ignore_empty=True
    )

    nats_url: Annotated[str, Field(validation_alias="NATS_URL")] = "nats://127.0.0.1:4222"
    nats_subject: Annotated[str, Field(validation_alias="NATS_SUBJECT")] = ""
    """Empty: derived from type and id."""
    nats_queue_group: Annotated[str, Field(validation_alias="NATS_QUEUE_GROUP", pattern=r"^[^\s*>]*$")] = ""
    """Empty: the id. Never none: without a queue group every replica would answer."""
    nats_credentials_file: Annotated[str | None, Field(validation_alias="NATS_CREDENTIALS_FILE")] = None
    extension_id: Annotated[
        str, Field(validation_alias="BEAMLINE_EXTENSION_ID", pattern=r"^[A-Za-z0-9_-]*$", max_length=253)
    ] = ""
    """Empty: the extension's own name."""
    extension_type: Annotated[ExtensionType | None, Field(validation_alias="BEAMLINE_EXTENSION_TYPE")] = None
    config: Annotated[dict[str, Any], Field(validation_alias="BEAMLINE_CONFIG")] = {}
    """Used for requests that carry none."""
    metrics_port: Annotated[int, Field(validation_alias="METRICS_PORT", ge=0, le=65_535)] = 9090
    """0 chooses a free port."""
    metrics_host: Annotated[str, Field(validation_alias="BEAMLINE_METRICS_HOST")] = ""
    """Empty: all interfaces, because probes come from outside the pod."""
    log_level: Annotated[str, Field(validation_alias="LOG_LEVEL")] = "info"
    log_silent: Annotated[bool, Field(validation_alias="LOG_SILENT")] = False
    concurrency: Annotated[int, Field(validation_alias="BEAMLINE_CONCURRENCY", ge=1, le=100_000)] = (
        CONCURRENCY
    )
    backlog: Annotated[int, Field(validation_alias="BEAMLINE_BACKLOG", ge=0, le=1_000_000)] = BACKLOG
    grace_s: Annotated[float, Field(validation_alias="BEAMLINE_GRACE_S", gt=0, le=3600)] = GRACE_S
    clock_skew_ms: Annotated[int, Field(validation_alias="BEAMLINE_CLOCK_SKEW_MS", ge=0, le=60_000)] = 0
    """How far the clocks of routers and this host may differ: added to Beamline-Deadline-At before work is
    refused.
    """

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.lower() not in LEVELS:
            raise ValueError(f"must be one of {', '.join(LEVELS)}")
        return value.lower()

    @classmethod
    def from_environment(cls) -> RuntimeSettings:
        """Reads the environment. Raises :class:`SettingsError` that names each wrong variable, without its
        value.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("; ".join(_sentence(entry) for entry in error.errors())) from None
        except ValueError:
            raise SettingsError("BEAMLINE_CONFIG must be a JSON object") from None

    def for_extension(self, extension: Extension[Any, Any]) -> RuntimeSettings:
        """A copy with id, type, subject and queue group filled in. Raises :class:`SettingsError`."""
        if self.extension_type is not None and self.extension_type != extension.kind:
            raise SettingsError(
                f"BEAMLINE_EXTENSION_TYPE says {self.extension_type}, "
                f"but {extension.name} is a {extension.kind}"
            )
        extension_id = self.extension_id or extension.name
        subject = self.nats_subject or derive_subject(extension.kind, extension_id)
        fault = subject_fault(subject)
        if fault is not None:
            raise SettingsError(f"NATS_SUBJECT {fault}")
        return self.model_copy(
            update={
                "extension_id": extension_id,
                "extension_type": extension.kind,
                "nats_subject": subject,
                "nats_queue_group": self.nats_queue_group or extension_id,
            }
        )


def _sentence(entry: Any) -> str:
    return f"{entry['loc'][0]}: {entry['msg'].removeprefix('Value error, ')}"
