"""What every provider of a remote model API can be told. Every request carries it: changes hold at once."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field, field_validator

from beamline_contract.names import MODEL_PATTERN
from beamline_sdk import Config

from .base_url import BaseUrlError, parse
from .prices import Price

ModelName = Annotated[str, Field(pattern=MODEL_PATTERN)]
PerMinute = Annotated[int, Field(ge=1, le=1_000_000_000)]
RESERVED = frozenset({"model", "messages", "stream", "stream_options", "system", "n"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class ModelApiConfig(Config):
    """Settings that all providers of remote model APIs share."""

    model: ModelName
    """The model that is asked, unless the request names one that `models` allows."""
    models: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Patterns (`gpt-4*`) of models that a request may choose by its parameter `model`; another wish is
    ignored, so that a fallback to this provider asks a model it has.
    """
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Most tokens of an answer, where the request does not say."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Where the request does not say; absent, it is not sent."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Where the request does not say; absent, it is not sent."""
    system: Annotated[str, Field(max_length=100_000)] | None = None
    """A system prompt that goes before the request's own."""
    parameters: Annotated[dict[str, Any], Field(default_factory=dict, max_length=64)]
    """Further parameters of the API, sent where the request does not have them."""
    base_url: Annotated[str, Field(max_length=512)] | None = None
    """Where the API is, if not at its usual address; it must be on the operator's list
    (BEAMLINE_ALLOWED_BASE_URLS).
    """
    requests_per_minute: PerMinute | None = None
    """Limit of this process, kept before the API's own is reached; absent: none."""
    tokens_per_minute: PerMinute | None = None
    """Limit of this process, prompt and answer together; estimated before a call and corrected after it."""
    rate_limit_wait_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    """How long a request may wait for its turn under these limits before it is refused."""
    connect_timeout_ms: Annotated[int, Field(ge=1, le=60_000)] = 5000
    """Milliseconds for a new connection, name resolution and TLS included."""
    prices: Annotated[dict[str, Price], Field(default_factory=dict, max_length=256)]
    """US dollars for a million tokens, `{input, output}` by model; cost is counted for these models alone.
    A dated version (`gpt-4-0613`) has the price of its model unless it has its own.
    """

    @field_validator("base_url")
    @classmethod
    def _is_a_base_url(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse(value)
            except BaseUrlError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("parameters")
    @classmethod
    def _free_parameters(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in RESERVED or not _NAME.fullmatch(name):
                raise ValueError(f"{name[:64]!r} can't be set here")
        return value

    def model_for(self, wanted: object) -> str:
        """The model to ask for a request that wants ``wanted``."""
        if isinstance(wanted, str) and wanted != self.model:
            for pattern in self.models:
                if fnmatchcase(wanted, pattern):
                    return wanted
        return self.model
