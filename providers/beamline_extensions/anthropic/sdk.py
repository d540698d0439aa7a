"""The official SDK ``anthropic``: the only module of this provider that imports it."""

from __future__ import annotations

from typing import Final

import anthropic
import httpx2

from ..model_api.sdk import Sdk


def client(base_url: str, key: str | None, http: httpx2.AsyncClient) -> anthropic.AsyncAnthropic:
    """A client without retries and without the SDK's own spans (ours has the extension's id in it)."""
    return anthropic.AsyncAnthropic(
        api_key=key or "none", base_url=base_url, max_retries=0, http_client=http, open_telemetry=False
    )


SDK: Final = Sdk(
    path="/v1/messages",
    client=client,
    stream=anthropic.AsyncStream[object],
    api_error=anthropic.APIError,
    without_key={"Authorization": anthropic.Omit()},
)
