"""One trace from the caller through a door and NATS into the extensions and back, as a collector gets it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from harness.model_api import error, fake_api
from harness.otlp import CLIENT, ERROR, SERVER, Collector, attributes

from .conftest import RouterProcess, Site, eventually, extension, policy, provider_reply

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
CANARY = "canary Jane.Doe@example.com"
STARTING_S = 90.0
"""Four interpreters at once, on a machine that does other things too."""
STEPS = [
    {"action": "extension_pre", "extension_id": "normalize_text"},
    {"action": "extension_validator", "extension_id": "pii_guard"},
    {"action": "select_provider", "provider_id": "openai_gpt4", "fallback": []},
    {"action": "extension_post", "extension_id": "mask_sensitive_data"},
]
CONFIGS: dict[str, dict[str, Any]] = {
    "normalize_text": {"trim_whitespace": True},
    "pii_guard": {"patterns": ["credit_card"], "block_on_match": True},
    "openai_gpt4": {"model": "gpt-4", "max_tokens": 64},
    "mask_sensitive_data": {"mask_patterns": ["email"]},
}
KINDS = {
    "normalize_text": "pre",
    "pii_guard": "validator",
    "openai_gpt4": "provider",
    "mask_sensitive_data": "post",
}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


@asynccontextmanager
async def processes(
    site: Site, folder: Path, more: dict[str, dict[str, str]], **env: str
) -> AsyncIterator[None]:
    """The shipped extensions as processes; they end, and so send their spans, with the block."""
    subjects = {record.id: record.subject for record in _records()}
    logs = {name: folder / f"{name}.log" for name in KINDS}
    running: list[asyncio.subprocess.Process] = []
    try:
        for name, log in logs.items():
            environment = {
                **os.environ,
                "NATS_URL": site.nats_url,
                "BEAMLINE_EXTENSION_ID": name,
                "NATS_SUBJECT": subjects[name],
                "METRICS_PORT": "0",
                **env,
                **more.get(name, {}),
            }
            built_in = "openai" if name == "openai_gpt4" else name
            with log.open("wb") as out:
                running.append(
                    await asyncio.create_subprocess_exec(
                        sys.executable, "-m", "beamline_extensions", built_in, env=environment, stderr=out
                    )
                )
        async with asyncio.timeout(STARTING_S):
            for log in logs.values():
                while b'"extension.ready"' not in log.read_bytes():  # noqa: ASYNC110 -- another process
                    await asyncio.sleep(0.05)
        yield
        for process in running:
            process.terminate()
        assert [await asyncio.wait_for(process.wait(), 30) for process in running] == [0] * len(running)
    finally:
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _records() -> list[Any]:
    return [
        extension(name, kind, timeout_ms=20_000, retry=1, config=CONFIGS[name])
        for name, kind in KINDS.items()
    ]


async def stopped(router: RouterProcess) -> None:
    """Ends a router in good order, so that it sends what it still has."""
    assert router.process is not None
    router.process.terminate()
    assert await router.wait() == 0


async def test_one_trace_goes_through_the_door_over_nats_into_every_extension_and_its_api(
    site: Site, start_router: Callable[..., RouterProcess], collector: Collector, tmp_path: Path
) -> None:
    await site.put(*_records(), policy("default", STEPS, generation=2, deadline_ms=30_000))
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(fake_api())
        api.script.append(error(503, "Server Error", "canary of the upstream"))
        of_api = {"OPENAI_API_KEY": "sk-canary-0123456789", "OPENAI_BASE_URL": f"{api.url}/v1"}
        await stack.enter_async_context(processes(site, tmp_path, {"openai_gpt4": of_api}, **asked))
        router = start_router(**asked)
        url = await router.start()
        await eventually(lambda: router.line("router.ready"), "the router is ready")
        async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
            answer = await http.post(
                "/v1/route", json={"prompt": CANARY, "tenant_id": "acme"}, headers=PARENT
            )
            shown = await http.get("/metrics", headers={"accept": "application/openmetrics-text"})
        await stopped(router)
    assert answer.status_code == 200, answer.text
    assert f'trace_id="{TRACE}"' in shown.text

    spans = {span.span_id: span for span in collector.spans()}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    (root,) = collector.named("router.request")
    assert (root.kind, root.parent_span_id.hex()) == (SERVER, CALLER)
    assert answer.headers["traceparent"] == f"00-{TRACE}-{root.span_id.hex()}-01"
    said = attributes(root)
    assert (said["beamline.door"], said["beamline.tenant_id"], said["beamline.status"]) == (
        "http",
        "acme",
        "ok",
    )
    assert (said["beamline.policy"], said["beamline.provider_id"]) == ("default", "openai_gpt4")

    invoked = collector.named("router.extension.invoke")
    assert all((one.kind, one.parent_span_id) == (CLIENT, root.span_id) for one in invoked)
    tree = {
        (attributes(one)["beamline.extension_id"], attributes(one)["beamline.attempt"]): one
        for one in invoked
    }
    assert set(tree) == {*((name, 1) for name in KINDS), ("openai_gpt4", 2)}, "the retry is a span of its own"
    failed = tree["openai_gpt4", 1]
    assert (failed.status.code, attributes(failed)["error.type"]) == (ERROR, "UNAVAILABLE")
    for name, kind in KINDS.items():
        below = collector.named(f"router.extension.{kind}")
        parents = {tree[key].span_id for key in tree if key[0] == name}
        assert {one.parent_span_id for one in below} == parents
        assert all(one.kind == SERVER for one in below)
    calls = collector.named("provider.openai_gpt4.api_call")
    assert len(calls) == 2
    assert {one.parent_span_id for one in calls} == {
        one.span_id for one in collector.named("router.extension.provider")
    }
    assert all(one.kind == CLIENT for one in calls)
    assert {attributes(one).get("error.type") for one in calls} == {"UNAVAILABLE", None}
    for one in spans.values():
        above = spans.get(one.parent_span_id)
        assert above is None or above.start_time_unix_nano <= one.start_time_unix_nano
    assert {service for service, _ in collector.by_service()} == {
        "beamline-router",
        *(f"beamline-{name}" for name in KINDS),
    }
    assert all(b"canary" not in body and b"Doe@" not in body for body in collector.bodies)


async def test_over_nats_retries_fallbacks_and_refusals_are_spans_and_a_sampler_keeps_what_failed(
    site: Site, start_router: Callable[..., RouterProcess], collector: Collector
) -> None:
    heard: list[str] = []

    def failing(_request: dict[str, Any]) -> dict[str, Any]:
        return {"error": {"code": "UNAVAILABLE", "message": CANARY, "retryable": True}}

    async def noted(message: Any) -> None:
        heard.append(message.headers["traceparent"])

    bad = extension("bad", "provider", retry=1)
    absent = extension("absent", "provider", retry=0)
    await site.respond(site.nc, "bad", bad.subject, failing)
    await site.respond(site.nc, "echo", "beamline.provider.echo.v1", provider_reply)
    await site.nc.subscribe("beamline.provider.echo.v1", cb=noted)
    step = {"action": "select_provider", "provider_id": "absent", "fallback": ["bad", "echo"]}
    good = {"action": "select_provider", "provider_id": "echo", "fallback": []}
    await site.put(
        bad,
        absent,
        policy("default", [step], generation=2),
        policy("good", [good], match={"models": ["good"]}),
    )
    router = start_router(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_TRACES_SAMPLER="always_off",
        BEAMLINE_TRACE_SLOW_MS="30000",
    )
    await router.start()
    await eventually(lambda: router.line("router.ready"), "the router is ready")
    for body in ({"prompt": CANARY, "model": "good"}, {"prompt": CANARY}):
        reply = await site.nc.request("beamline.router.v1.invoke", orjson.dumps(body), timeout=20)
        assert orjson.loads(reply.data)["provider_id"] == "echo"
    await stopped(router)

    assert {told[-2:] for told in heard} == {"00"}, "extensions are told that nobody samples this"
    (root,) = collector.named("router.request")
    assert root.parent_span_id == b""
    said = attributes(root)
    assert (said["beamline.door"], said["beamline.sampled"]) == ("nats", "tail")
    attempts = [
        (
            attributes(one)["beamline.extension_id"],
            attributes(one)["beamline.attempt"],
            attributes(one)["beamline.why"],
            attributes(one).get("error.type"),
        )
        for one in sorted(
            collector.named("router.extension.invoke"), key=lambda span: span.start_time_unix_nano
        )
    ]
    assert attempts == [
        ("absent", 1, "ordered", "UNAVAILABLE"),
        ("bad", 1, "fallback", "UNAVAILABLE"),
        ("bad", 2, "fallback", "UNAVAILABLE"),
        ("echo", 1, "fallback", None),
    ]
    assert all(b"canary" not in body for body in collector.bodies)


async def test_without_being_asked_a_router_sends_nothing_and_passes_the_callers_flag_on(
    site: Site, start_router: Callable[..., RouterProcess], collector: Collector
) -> None:
    heard: list[str] = []

    async def noted(message: Any) -> None:
        heard.append(message.headers["traceparent"])

    await site.nc.subscribe("beamline.provider.echo.v1", cb=noted)
    await site.nc.flush()
    router = start_router(OTEL_EXPORTER_OTLP_ENDPOINT="", OTEL_SERVICE_NAME="mine")
    url = await router.start()
    await eventually(lambda: router.line("router.ready"), "the router is ready")
    async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
        for flags in ("00", "01"):
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-{flags}"}
            assert (await http.post("/v1/route", json={"prompt": "Hi"}, headers=headers)).status_code == 200
    await stopped(router)
    assert [told[-2:] for told in heard] == ["00", "01"]
    assert collector.bodies == []
