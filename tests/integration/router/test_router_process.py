"""A router as a process: its start, its log, its metrics, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from beamline_contract.names import SUBJECT_INVOKE, SUBJECT_ROUTER_HEALTH, SUBJECT_ROUTER_STATUS
from beamline_router.edges import snapshot_file

from .conftest import (
    PIPELINE,
    RECORDS,
    RouterProcess,
    Site,
    eventually,
    extension,
    policy,
    provider_reply,
    running,
)

Start = Callable[..., RouterProcess]

METRICS = {
    "extension_registry_size": {"type", "enabled"},
    "extension_registry_reload_duration_seconds_bucket": {"le"},
    "extension_registry_reload_errors_total": set(),
    "extension_requests_total": {"extension_id", "status"},
    "extension_request_duration_seconds_bucket": {"extension_id", "le"},
    "extension_failures_total": {"extension_id", "reason"},
    "provider_requests_total": {"provider_id", "status"},
    "provider_latency_seconds_bucket": {"provider_id", "le"},
    "provider_tokens_total": {"provider_id", "type"},
    "extension_breaker_state": {"extension_id"},
    "router_requests_total": {"door", "code"},
    "router_request_duration_seconds_bucket": {"door", "le"},
}


async def ready(http: httpx2.AsyncClient) -> bool:
    reply = await http.get("/readyz")
    return reply.status_code == 200 and reply.json()["status"] == "ready"


async def test_the_running_process_exports_the_names_and_labels_that_the_contract_gives(
    site: Site, start_router: Start
) -> None:
    await site.put(
        extension(
            "failing",
            "provider",
            retry=0,
            spec={"circuitBreaker": {"failureThreshold": 1, "minFailureRatio": 0}},
        ),
        policy("failing", [{"action": "select_provider", "provider_id": "failing", "fallback": []}]),
    )
    url = await start_router().start()
    async with httpx2.AsyncClient(base_url=url, timeout=20) as http:
        await eventually(lambda: ready(http), "ready")
        assert (await http.post("/v1/route", json={"prompt": "a"})).status_code == 200
        assert (await http.post("/v1/route", json={"prompt": "a", "policy": "failing"})).status_code == 503
        text = (await http.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    labels = {sample.name: set(sample.labels) for sample in samples}
    assert {name: labels.get(name) for name in METRICS} == METRICS

    def value(name: str, **wanted: str) -> float:
        return sum(s.value for s in samples if s.name == name and s.labels == wanted)

    assert value("extension_requests_total", extension_id="guard", status="ok") == 1
    assert value("extension_failures_total", extension_id="failing", reason="unavailable") == 1
    assert value("provider_tokens_total", provider_id="echo", type="completion") == 5
    assert value("extension_registry_size", type="provider", enabled="true") == 2
    assert value("extension_breaker_state", extension_id="failing") == 2


async def test_one_line_per_request_has_the_fields_of_the_contract_and_no_content(
    site: Site, start_router: Start
) -> None:
    process = start_router()
    url = await process.start()
    async with httpx2.AsyncClient(base_url=url, timeout=20) as http:
        await eventually(lambda: ready(http), "ready")
        body = {"prompt": "CANARY-7361 text", "tenant_id": "acme"}
        await http.post("/v1/route", json=body, headers={"x-request-id": "req-log"})
        await http.post("/v1/route", json={"prompt": "4111 CANARY-7361"})
        await http.post("/v1/route", content=b'{"CANARY', headers={"content-type": "application/json"})
    lines = await eventually(
        lambda: len(found := process.lines("request.served")) == 3 and found, "three lines"
    )
    first, second, third = lines
    assert first.keys() >= {
        *(
            "timestamp",
            "level",
            "event",
            "extension_id",
            "trace_id",
            "tenant_id",
            "latency_ms",
            "status",
            "error",
        ),
        *("request_id", "policy", "provider", "door"),
    }
    assert (first["request_id"], first["tenant_id"], first["policy"], first["provider"]) == (
        "req-log",
        "acme",
        "default",
        "echo",
    )
    assert (first["status"], first["error"], first["level"]) == ("ok", None, "info")
    assert (second["status"], second["error"], second["extension_id"]) == (
        "error",
        "VALIDATION_REJECTED",
        "guard",
    )
    assert (third["status"], third["error"]) == ("error", "INVALID_ARGUMENT")
    assert "CANARY" not in process.log.read_text()


async def test_log_silent_writes_no_line_for_a_request(site: Site, start_router: Start) -> None:
    process = start_router(LOG_SILENT="1", BEAMLINE_HTTP_PORT="0")
    task = asyncio.ensure_future(process.start())
    reply = None

    async def answered() -> bool:
        nonlocal reply
        try:
            reply = await site.nc.request(SUBJECT_INVOKE, b'{"prompt":"x"}', timeout=1)
        except Exception:  # noqa: BLE001 -- not there yet
            return False
        return True

    await eventually(answered, "the router answers")
    task.cancel()
    assert process.process is not None
    process.process.terminate()
    assert await process.wait() == 0
    assert process.log.read_text() == ""


@pytest.mark.parametrize("door", ["http", "nats"])
async def test_sigterm_under_load_loses_no_request_that_had_been_taken(
    site: Site, start_router: Start, door: str
) -> None:
    async def slow(request: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.3)
        return provider_reply(request, "slow")

    await site.put(
        extension("slow", "provider"),
        policy("slow", [{"action": "select_provider", "provider_id": "slow", "fallback": []}]),
    )
    await site.respond(site.nc, "slow", "beamline.provider.slow.v1", slow)
    await site.listen(SUBJECT_ROUTER_STATUS)
    process = start_router()
    url = await process.start()
    limits = httpx2.Limits(max_connections=200)
    async with httpx2.AsyncClient(base_url=url, timeout=20, limits=limits) as http:
        await eventually(lambda: ready(http), "ready")
        body = {"prompt": "x", "policy": "slow"}

        async def ask() -> str:
            if door == "http":
                return str((await http.post("/v1/route", json=body)).json().get("output"))
            reply = await site.nc.request(SUBJECT_INVOKE, orjson.dumps(body), timeout=15)
            return str(orjson.loads(reply.data).get("output"))

        tasks = [asyncio.ensure_future(ask()) for _ in range(60)]
        await eventually(lambda: site.calls.get("slow", 0) >= 60, "all are on their way")
        assert process.process is not None
        process.process.terminate()
        assert await asyncio.gather(*tasks) == ["slow"] * 60
    assert await process.wait() == 0
    assert process.line("router.stopped") is not None
    assert any(status["leaving"] for status in site.heard[SUBJECT_ROUTER_STATUS])


async def test_over_nats_who_is_not_answered_when_the_grace_is_over_is_told_so(site: Site) -> None:
    async def endless(_request: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    await site.put(
        extension("endless", "provider", timeout_ms=60_000),
        policy("endless", [{"action": "select_provider", "provider_id": "endless", "fallback": []}]),
    )
    await site.respond(site.nc, "endless", "beamline.provider.endless.v1", endless)
    for transport in ("fast", "plain"):
        async with running(site.settings(grace_seconds=0.2, transport=transport)) as served:
            before = site.calls.get("endless", 0)
            asked = asyncio.ensure_future(
                site.nc.request(SUBJECT_INVOKE, b'{"prompt":"x","policy":"endless"}', timeout=15)
            )
            await eventually(lambda before=before: site.calls.get("endless", 0) > before, "it is on its way")
            served.stop.set()
            error = orjson.loads((await asked).data)["error"]
        assert (error["code"], error["retryable"]) == ("UNAVAILABLE", True)


async def test_sighup_reads_the_whole_registry_anew(site: Site, start_router: Start) -> None:
    process = start_router(BEAMLINE_POLL_SECONDS="3600")
    url = await process.start()
    async with httpx2.AsyncClient(base_url=url, timeout=20) as http:
        await eventually(lambda: ready(http), "ready")
        assert len(process.lines("registry.reloaded")) == 1
        assert process.process is not None
        process.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len(process.lines("registry.reloaded")) == 2, "a second reload")
        assert await ready(http)


async def test_health_deltas_reach_the_operator_by_the_time_the_router_leaves(
    site: Site, start_router: Start
) -> None:
    await site.listen(SUBJECT_ROUTER_HEALTH)
    process = start_router()
    url = await process.start()
    async with httpx2.AsyncClient(base_url=url, timeout=20) as http:
        await eventually(lambda: ready(http), "ready")
        for _ in range(10):
            await http.post("/v1/route", json={"prompt": "a"})
    assert process.process is not None
    process.process.terminate()
    await process.wait()

    def successes() -> int:
        reports = site.heard.get(SUBJECT_ROUTER_HEALTH, [])
        return sum(d["success"] for r in reports for d in r["deltas"] if d["extension_id"] == "echo")

    await eventually(lambda: successes() == 10, "ten calls are reported, each once")
    sequences = [report["sequence"] for report in site.heard[SUBJECT_ROUTER_HEALTH]]
    assert sequences == sorted(set(sequences))


async def test_a_cold_start_with_postgresql_and_nats_down_serves_the_file_and_says_stale(
    start_router: Start, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot"
    snapshot_file.save(file, 41, RECORDS, [policy("default", PIPELINE)])
    process = start_router(**nowhere(tmp_path), BEAMLINE_SNAPSHOT_FILE=str(file))
    url = await process.start()
    async with httpx2.AsyncClient(base_url=url, timeout=20) as http:

        async def is_ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(is_ready, "ready though stale")
        body = (await http.get("/readyz")).json()
        reply = await http.post("/v1/route", json={"prompt": "Hi"})
    assert (body["status"], body["revision"]) == ("stale", 41)
    assert body["stale"] == {"registry": True, "nats": True, "from_file": True}
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "UNAVAILABLE"
    assert reply.json()["steps"][0]["outcome"] == "skipped"
    await ended_well(process)


async def test_without_anything_to_serve_a_router_is_alive_not_ready_and_says_what_it_waits_for(
    start_router: Start, tmp_path: Path
) -> None:
    process = start_router(**nowhere(tmp_path))
    url = await process.start()
    async with httpx2.AsyncClient(base_url=url, timeout=20) as http:
        waiting = await eventually(lambda: process.line("router.waiting"), "it says what it waits for")
        assert (await http.get("/healthz")).status_code == 200
        unready = await http.get("/readyz")
        refused = await http.post("/v1/route", json={"prompt": "Hi"})
    assert (waiting["missing"], waiting["serving"]) == (["nats", "registry"], False)
    assert (unready.status_code, unready.json()["status"]) == (503, "starting")
    assert (refused.status_code, refused.json()["error"]["retryable"]) == (503, True)
    assert int(refused.headers["retry-after"]) >= 1
    await ended_well(process)


def nowhere(tmp_path: Path) -> dict[str, str]:
    """Addresses at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    return {
        "NATS_URL": f"nats://127.0.0.1:{port}",
        "BEAMLINE_DATABASE_URL": f"postgresql://nobody@/gone?host={tmp_path}",
    }


async def ended_well(process: RouterProcess) -> None:
    assert process.process is not None
    process.process.terminate()
    assert await process.wait() == 0


async def test_a_schema_that_was_edited_ends_the_process_with_78_and_one_sentence(
    nats_server: Any, database_url: str, start_router: Start
) -> None:
    import asyncpg

    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE schema_migrations SET checksum = 'another'")
    await connection.close()
    process = start_router(LOG_SILENT="1")
    with pytest.raises(AssertionError):
        await process.start()
    assert await process.wait() == 78
    [line] = process.log.read_text().strip().splitlines()
    assert line.startswith("beamline router: ")
    assert "was edited after it was applied" in line
