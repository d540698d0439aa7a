"""The official SDK ``openai``: the only module of this provider that imports it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import httpx2
import openai

from ..model_api.sdk import Sdk


def client(base_url: str, key: str | None, http: httpx2.AsyncClient) -> openai.AsyncOpenAI:
    """A client without retries."""
    return openai.AsyncOpenAI(api_key=key or "none", base_url=base_url, max_retries=0, http_client=http)


def foreign_client(base_url: str, key: str | None, http: httpx2.AsyncClient) -> openai.AsyncOpenAI:
    """A client for somebody else's endpoint: without the account's organization and project."""
    nothing: dict[str, Any] = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
    return openai.AsyncOpenAI(
        api_key=key or "none", base_url=base_url, max_retries=0, http_client=http, default_headers=nothing
    )


SDK: Final = Sdk(
    path="/chat/completions",
    client=client,
    stream=openai.AsyncStream[object],
    api_error=openai.APIError,
    without_key={"Authorization": openai.Omit()},
)
FOREIGN: Final = replace(SDK, client=foreign_client)
