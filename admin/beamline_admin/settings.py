"""What the admin process is told from outside: environment variables, or arguments of the same names."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from beamline_sdk.logs import LEVELS

MIN_TOKEN_LENGTH: Final = 16
_ISSUERS: Final = ("https://", "http://127.0.0.1:", "http://localhost:")
"""An issuer by plain HTTP could be anybody; one on this machine is for trying it."""


def _either(name: str) -> Any:
    return AliasChoices(f"BEAMLINE_{name}", name)


def _named(name: str) -> Any:
    """A name of its own, so that a router in the same environment keeps ``BEAMLINE_HTTP_PORT`` for itself."""
    return AliasChoices(f"BEAMLINE_ADMIN_{name}")


class AdminSettings(BaseSettings):
    """Settings of one admin process. Every default suits a laptop; an empty variable counts as unset."""

    model_config = SettingsConfigDict(
        env_prefix="BEAMLINE_",
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    database_url: str = "postgresql://127.0.0.1:5432/beamline"
    http_host: Annotated[str, Field(validation_alias=_named("HTTP_HOST"))] = "127.0.0.1"
    http_port: Annotated[int, Field(validation_alias=_named("HTTP_PORT"), ge=0, le=65_535)] = 8081
    """0 chooses a free port."""
    token: Annotated[
        SecretStr,
        Field(validation_alias=_named("TOKEN"), default_factory=lambda: SecretStr(secrets.token_urlsafe(32))),
    ]
    """Works for clients on this machine only. Not given: 256 random bits, new at every start."""
    nats_url: Annotated[str, Field(validation_alias=_either("NATS_URL"))] = ""
    """Empty: routers can't be asked."""
    nats_credentials_file: Annotated[str | None, Field(validation_alias=_either("NATS_CREDENTIALS_FILE"))] = (
        None
    )
    cluster: Annotated[bool, Field(validation_alias=_named("CLUSTER"))] = False
    """Objects live in a cluster: by KUBECONFIG, else by the pod's service account. Its tokens count, too."""
    kubeconfig: Annotated[str | None, Field(validation_alias=AliasChoices("KUBECONFIG"))] = None
    namespaces: Annotated[str, Field(validation_alias=_named("NAMESPACES"))] = ""
    """Comma-separated; empty is all of them."""
    token_audience: Annotated[str, Field(validation_alias=_named("TOKEN_AUDIENCE"))] = ""
    """Audience that tokens of the cluster must have; empty: that of the API server."""
    folder: Annotated[Path | None, Field(validation_alias=_named("FOLDER"))] = None
    """Objects live in the YAML files of this folder, whose `beamline up` has the state :attr:`state`."""
    state: Annotated[Path | None, Field(validation_alias=_named("STATE"))] = None
    oidc_issuer: Annotated[str, Field(validation_alias=_named("OIDC_ISSUER"))] = ""
    """Empty: no tokens of an identity provider."""
    oidc_audience: Annotated[str, Field(validation_alias=_named("OIDC_AUDIENCE"))] = ""
    oidc_jwks_url: Annotated[str, Field(validation_alias=_named("OIDC_JWKS_URL"))] = ""
    oidc_subject_claim: Annotated[str, Field(validation_alias=_named("OIDC_SUBJECT_CLAIM"))] = "sub"
    oidc_role_claim: Annotated[str, Field(validation_alias=_named("OIDC_ROLE_CLAIM"))] = "beamline_role"
    oidc_tenants_claim: Annotated[str, Field(validation_alias=_named("OIDC_TENANTS_CLAIM"))] = (
        "beamline_tenants"
    )
    trail_content: Annotated[bool, Field(validation_alias=AliasChoices("BEAMLINE_TRAIL_CONTENT"))] = False
    """Admins may ask to see prompts and answers while they watch; routers need the same setting."""
    rate: Annotated[float, Field(validation_alias=_named("RATE"), gt=0, le=10_000)] = 50.0
    """Requests per second and caller; twice as many at once."""
    log_level: Annotated[str, Field(validation_alias=_either("LOG_LEVEL"))] = "info"
    log_silent: Annotated[bool, Field(validation_alias=_either("LOG_SILENT"))] = False

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < MIN_TOKEN_LENGTH:
            raise ValueError(f"must have at least {MIN_TOKEN_LENGTH} characters: short tokens can be guessed")
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.lower() not in LEVELS:
            raise ValueError(f"must be one of {', '.join(LEVELS)}")
        return value.lower()

    @model_validator(mode="after")
    def _fit_together(self) -> AdminSettings:
        if bool(self.oidc_issuer) != bool(self.oidc_audience):
            raise ValueError("BEAMLINE_ADMIN_OIDC_ISSUER and _AUDIENCE go together")
        if self.oidc_issuer and not self.oidc_issuer.startswith(_ISSUERS):
            raise ValueError("BEAMLINE_ADMIN_OIDC_ISSUER must be an https:// URL")
        if (self.folder is None) != (self.state is None):
            raise ValueError("BEAMLINE_ADMIN_FOLDER and BEAMLINE_ADMIN_STATE go together")
        if self.cluster and self.folder is not None:
            raise ValueError("objects live in a cluster or in a folder, not in both")
        return self

    @classmethod
    def from_environment(cls) -> AdminSettings:
        """Reads the environment. Raises :class:`ValueError` with one sentence per wrong variable, without its
        value.
        """
        try:
            return cls()  # type: ignore[call-arg]  # the token has a default
        except ValidationError as error:
            sentences = (
                f"{'.'.join(map(str, entry['loc'])) or 'settings'}: {entry['msg']}"
                for entry in error.errors(include_input=False)
            )
            raise ValueError("; ".join(sentences)) from None

    @property
    def token_is_generated(self) -> bool:
        """Whether nobody chose the token, so somebody has to be told."""
        return "token" not in self.model_fields_set
