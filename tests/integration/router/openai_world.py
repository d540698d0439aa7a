"""A site where each model is a different temper of the real mock provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import orjson

from beamline_extensions.mask_sensitive_data.extension import MaskSensitiveData
from beamline_extensions.mock_provider.extension import MockProvider
from beamline_sdk.runtime import serve
from beamline_sdk.settings import RuntimeSettings

from .conftest import Served, Site, extension, policy, running

USER = [{"role": "user", "content": "Hi"}]
FILLER = "The weather in Vienna is fine today. "
HELLO = {"mode": "fixed", "answer": "Hello there", "chunk_characters": 4}
TEMPERS: dict[str, dict[str, Any]] = {
    "fast": HELLO,
    "slow": {**HELLO, "latency_ms": 5_000},
    "pausing": {**HELLO, "latency_ms": 30_000},
    "busy": {**HELLO, "error_rate": 1, "error_code": "RESOURCE_EXHAUSTED", "retry_after_ms": 2_000},
    "breaking": {**HELLO, "stream_fault": "error"},
    "stalling": {**HELLO, "stream_fault": "stall", "stall_ms": 600_000},
    "leaky": {
        "mode": "fixed",
        "answer": f"{FILLER * 12}write to jane.doe@example.com or don't. {FILLER * 12}",
        "chunk_characters": 1,
    },
}
SUBJECT = "beamline.provider.talk.v1"
MASK = "beamline.ext.post.mask_talk.v1"


@asynccontextmanager
async def chatting(site: Site, **settings: Any) -> AsyncIterator[Served]:
    """A router, the mock provider and the mask, all serving; a policy for each temper."""
    records: list[Any] = [extension("mask_talk", "post", subject=MASK), extension("absent", "provider")]
    records.append(extension("talk", "provider", retry=0))
    for name, config in TEMPERS.items():
        step = {"action": "select_provider", "provider_id": "talk", "config": config}
        steps: list[dict[str, Any]] = [{**step, "timeout_ms": 300 if name == "slow" else 60_000}]
        if name == "leaky":
            steps.append({"action": "extension_post", "extension_id": "mask_talk"})
        records.append(policy(name, steps, match={"models": [name]}, deadline_ms=60_000))
    guarded = [
        {"action": "extension_validator", "extension_id": "no"},
        _provider("talk"),
    ]
    records += [
        extension("no", "validator"),
        policy("guarded", guarded, match={"models": ["guarded"]}),
        policy("absent", [_provider("absent")], match={"models": ["absent"]}),
        policy("default", [_provider("talk")], generation=2, match={"models": ["of-no-test"]}),
    ]
    await site.put(*records)
    await site.respond(
        site.nc, "no", "beamline.ext.validate.no.v1", lambda _: {"verdict": "reject", "reason": "no"}
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(mock_provider(site))
        await stack.enter_async_context(serving_extension(MaskSensitiveData(), site, MASK))
        yield await stack.enter_async_context(running(site.settings(**settings)))


def mock_provider(site: Site) -> AbstractAsyncContextManager[None]:
    """The real mock provider, on the subject of the id ``talk``."""
    return serving_extension(MockProvider(), site, SUBJECT)


def _provider(extension_id: str) -> dict[str, Any]:
    return {"action": "select_provider", "provider_id": extension_id}


@asynccontextmanager
async def serving_extension(extension: Any, site: Site, subject: str) -> AsyncIterator[None]:
    """Serves an extension of the SDK in this process."""
    stop, ready = asyncio.Event(), asyncio.Event()
    settings = RuntimeSettings(
        nats_url=site.nats_url, nats_subject=subject, metrics_port=0, metrics_host="127.0.0.1", grace_s=1
    )
    task = asyncio.create_task(serve(extension, settings, stop=stop, ready=ready.set))
    try:
        async with asyncio.timeout(20):
            await ready.wait()
        yield
    finally:
        stop.set()
        await task


def events(reply: httpx2.Response) -> list[str]:
    """The data of every event."""
    rows = reply.text.split("\n\n")
    return [row.rpartition("data: ")[2] for row in rows if row]


def deltas(reply: httpx2.Response) -> list[dict[str, Any]]:
    """The deltas of a chat stream."""
    chunks = [orjson.loads(row) for row in events(reply) if row != "[DONE]"]
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk.get("choices")]
