"""What a router's callers see while the parts around it fail: a frozen or killed NATS, files that can't be
trusted, and an end under load with streams on both doors.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import orjson
import pytest
import structlog

from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPostgres
from beamline_contract.names import (
    SUBJECT_INVOKE,
    SUBJECT_ROUTER_ADMIN,
    SUBJECT_ROUTER_HEALTH,
    SUBJECT_ROUTER_PROBE,
    SUBJECT_ROUTER_STATUS,
)
from beamline_router.app import run
from beamline_router.edges import snapshot_file
from beamline_sdk import link
from harness.relay import CLOSED_FOR_GOOD, relayed

from .conftest import (
    PIPELINE,
    RECORDS,
    RouterProcess,
    Site,
    eventually,
    extension,
    open_site,
    policy,
    running,
)
from .openai_world import chatting, mock_provider
from .test_router_process import ended_well, nowhere, ready

Start = Callable[..., RouterProcess]


def damaged(raw: bytes) -> dict[str, tuple[bytes, str]]:
    """A saved table in two conditions (the others: test_router_refresh), and what the router says of each."""
    head, _, document = raw.partition(b"\n")
    newer = head.replace(b" 1 ", b" 2 ", 1)
    return {
        "one letter changed": (raw.replace(b"echo", b"ecHo"), "checksum"),
        "of a newer version": (newer + b"\n" + document, "schema version 2, this router reads 1"),
    }


async def test_a_file_that_can_not_be_trusted_is_named_and_the_router_waits_for_the_registry(
    site: Site, start_router: Start, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot"
    snapshot_file.save(file, 41, RECORDS, [policy("default", PIPELINE)])
    for content, words in damaged(file.read_bytes()).values():
        await asyncio.to_thread(file.write_bytes, content)
        process = start_router(**nowhere(tmp_path), BEAMLINE_SNAPSHOT_FILE=str(file))
        url = await process.start()
        async with httpx2.AsyncClient(base_url=url, timeout=20) as http:
            line = await eventually(lambda p=process: p.line("snapshot_file.unusable"), "it says why")
            readiness = await http.get("/readyz")
            await eventually(lambda p=process: p.line("registry.reload_failed"), "it tries the registry")
        assert words in line["error"]
        assert (line["path"], line["level"]) == (str(file), "warning")
        assert (readiness.status_code, readiness.json()["status"]) == (503, "starting")
        assert readiness.json()["revision"] == 0
        await ended_well(process)
    found = start_router(BEAMLINE_SNAPSHOT_FILE=str(file))
    async with httpx2.AsyncClient(base_url=await found.start(), timeout=20) as http:
        await eventually(lambda: ready(http), "with a registry it serves")
        await eventually(lambda: _usable(file), "and writes the file anew")


def _usable(file: Path) -> bool:
    try:
        return snapshot_file.load(file) is not None
    except snapshot_file.SnapshotFileError:
        return False


async def test_after_a_cold_start_the_age_of_the_file_is_in_the_gauge_and_in_readiness(
    start_router: Start, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot"
    hour_ago = time.time() - 3_600
    snapshot_file.save(file, 41, RECORDS, [policy("default", PIPELINE)], wall=lambda: hour_ago)
    process = start_router(**nowhere(tmp_path), BEAMLINE_SNAPSHOT_FILE=str(file))
    async with httpx2.AsyncClient(base_url=await process.start(), timeout=20) as http:
        body = (await http.get("/readyz")).json()
        text = (await http.get("/metrics")).text
    [gauge] = [row for row in text.splitlines() if row.startswith("extension_registry_age_seconds ")]
    assert 3_600 <= body["age_seconds"] < 3_700
    assert 3_600 <= float(gauge.rpartition(" ")[2]) < 3_700
    assert body["stale"] == {"registry": True, "nats": True, "from_file": True}
    assert "extension_registry_revision 41.0" in text
    assert 'extension_registry_size{enabled="true",type="validator"} 1.0' in text
    await ended_well(process)


def test_two_pings_without_an_answer_are_noticed_within_six_seconds() -> None:
    assert link.PING_INTERVAL_S * (link.MAX_OUTSTANDING_PINGS + 1) <= 6


async def test_nats_that_hangs_up_for_good_while_the_table_is_waited_for_is_connected_to_again(
    own_nats: LocalNats, own_postgres: LocalPostgres
) -> None:
    async with open_site(own_nats.url, own_postgres.url()) as site, relayed(own_nats.port) as (port, back):
        own_postgres.stop()
        stop, ready = asyncio.Event(), asyncio.Event()
        settings = site.settings(nats_url=f"nats://127.0.0.1:{port}")
        with structlog.testing.capture_logs() as lines:
            task = asyncio.create_task(run(settings, stop=stop, ready=lambda _: ready.set()))
            try:
                await eventually(lambda: [row for row in lines if row["event"] == "nats.connected"], "there")
                back[0].write(CLOSED_FOR_GOOD)
                [closed] = await eventually(
                    lambda: [row for row in lines if row["event"] == "nats.closed"], "it has ended"
                )
                await asyncio.to_thread(own_postgres.start)
                await asyncio.wait(
                    {task, asyncio.ensure_future(ready.wait())}, timeout=30, return_when="FIRST_COMPLETED"
                )
                assert ready.is_set()
            finally:
                stop.set()
                await asyncio.wait_for(task, 30)
        assert "account connections exceeded" in closed["error"]


async def test_credentials_that_are_gone_when_nats_is_opened_again_end_no_router(
    own_nats: LocalNats, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "router.creds"
    file.write_text("this server asks for none")
    async with open_site(own_nats.url, database_url) as site, relayed(own_nats.port) as (port, back):
        settings = site.settings(nats_url=f"nats://127.0.0.1:{port}", nats_credentials_file=str(file))
        with structlog.testing.capture_logs() as lines:
            async with running(settings) as served:
                assert await served.answers()
                file.unlink()
                back[0].write(CLOSED_FOR_GOOD)
                [refused, *_] = await eventually(
                    lambda: [row for row in lines if row["event"] == "nats.not_reopened"], "it was tried"
                )
                file.write_text("this server asks for none")
                await eventually(served.answers, "it serves again")
        assert str(file) in refused["error"]


async def test_nats_that_hangs_up_on_every_connection_is_not_hammered(
    database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "nats.conf").write_text("max_subscriptions: 2\n")
    server = LocalNats(extra=("-c", str(tmp_path / "nats.conf")))
    server.start()
    stop = asyncio.Event()
    settings = Site(server.url, database_url, None, None).settings()  # type: ignore[arg-type]  # only its addresses
    try:
        with structlog.testing.capture_logs() as lines:
            task = asyncio.create_task(run(settings, stop=stop))
            try:
                await eventually(
                    lambda: [row for row in lines if row["event"] == "nats.closed"], "it has ended"
                )
                await asyncio.sleep(1.0)
            finally:
                stop.set()
                await asyncio.wait_for(task, 30)
        assert 1 <= len([row for row in lines if row["event"] == "nats.closed"]) < 10
    finally:
        server.stop()


async def test_a_nats_that_carries_little_gets_short_reports_and_an_admin_answer_that_says_so(
    database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "nats.conf").write_text("max_payload: 2048\n")
    server = LocalNats(extra=("-c", str(tmp_path / "nats.conf")))
    server.start()
    try:
        async with open_site(server.url, database_url) as site:
            for subject in (SUBJECT_ROUTER_STATUS, SUBJECT_ROUTER_HEALTH):
                await site.listen(subject)
            broken = [extension(f"broken_{number}", "pre", spec={"failureMode": "?"}) for number in range(30)]
            absent = [extension(f"absent_{number}", "provider", retry=0) for number in range(20)]
            steps = [[{"action": "select_provider", "provider_id": one.id}] for one in absent]
            await site.put(*broken, *absent, *(policy(f"p_{n}", step) for n, step in enumerate(steps)))
            async with running(site.settings()) as served:
                status, *_ = await eventually(lambda: site.heard.get(SUBJECT_ROUTER_STATUS), "a status")
                assert len(served.router.refresher.refused) == 30 > len(status["refused"]) > 0
                for number in range(20):
                    await served.route({"prompt": "x", "policy": f"p_{number}"})
                await site.nc.publish(SUBJECT_ROUTER_PROBE, b"")
                await eventually(lambda: _failed(site) == {one.id for one in absent}, "health of each")
                reply = await site.nc.request(f"{SUBJECT_ROUTER_ADMIN}.status", b"{}", timeout=5)
                assert "2048 bytes that NATS carries" in orjson.loads(reply.data)["error"]["message"]
    finally:
        server.stop()


def _failed(site: Site) -> set[str]:
    reports = site.heard.get(SUBJECT_ROUTER_HEALTH, [])
    return {delta["extension_id"] for report in reports for delta in report["deltas"] if delta["failure"]}


async def test_a_frozen_nats_is_noticed_and_then_requests_fail_at_once_until_it_thaws(
    own_nats: LocalNats, database_url: str
) -> None:
    async with open_site(own_nats.url, database_url) as site, AsyncExitStack() as stack:
        served = await stack.enter_async_context(running(site.settings()))
        assert await served.answers()
        own_nats.freeze()
        try:

            async def noticed() -> bool:
                return bool((await served.readiness())["stale"]["nats"])

            await eventually(noticed, "the router notices")
            reply = await served.route({"prompt": "Hi"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "UNAVAILABLE")
        finally:
            own_nats.thaw()
        await eventually(served.answers, "requests are answered again")
        assert set(served.router.runtime.breaker_states().values()) <= {"closed"}


async def test_nats_killed_within_a_stream_interrupts_it_and_blames_nobody(
    own_nats: LocalNats, database_url: str
) -> None:
    async with open_site(own_nats.url, database_url) as site, AsyncExitStack() as stack:
        served = await stack.enter_async_context(chatting(site))
        body = {"model": "stalling", "prompt": "Hi", "stream": True}
        rows: list[str] = []
        async with served.http.stream("POST", "/v1/route", json=body) as reply:
            async for line in reply.aiter_lines():
                rows.append(line)
                if "delta" in line:
                    await asyncio.to_thread(own_nats.stop, signal.SIGKILL)
        error = orjson.loads(rows[-2].removeprefix("data: "))["error"]
        assert error["code"] == "STREAM_INTERRUPTED"
        assert error["details"]["delivered_characters"] > 0
        assert served.router.runtime.breaker_states().get("talk", "closed") == "closed"
        await asyncio.to_thread(own_nats.start)
        fast = {"model": "fast", "prompt": "Hi"}

        async def answers() -> bool:
            return (await served.route(fast)).status_code == 200

        await eventually(answers, "requests are answered again")


@pytest.mark.parametrize("door", ["http", "nats"])
async def test_sigterm_lets_every_stream_come_to_its_end(site: Site, start_router: Start, door: str) -> None:
    config = {"mode": "fixed", "answer": "word " * 12, "chunk_characters": 5, "chunk_delay_ms": 60}
    async with mock_provider(site):
        step = {"action": "select_provider", "provider_id": "talk", "config": config}
        await site.put(extension("talk", "provider"), policy("paced", [step]))
        process = start_router()
        url = await process.start()
        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(base_url=url, timeout=20, limits=limits) as http:
            await eventually(lambda: ready(http), "ready")
            assert process.process is not None
            begun = 0
            body = {"policy": "paced", "prompt": "x", "stream": True}

            async def over_http() -> tuple[str, bool]:
                nonlocal begun
                async with http.stream("POST", "/v1/route", json=body) as reply:
                    text = ""
                    async for line in reply.aiter_lines():
                        begun += "delta" in line and not text
                        text += line + "\n"
                said = [orjson.loads(row) for row in events_of(text) if row]
                return "".join(row.get("delta", "") for row in said), "event: end" in text

            async def over_nats() -> tuple[str, bool]:
                nonlocal begun
                text, inbox = "", site.nc.new_inbox()
                subscription = await site.nc.subscribe(inbox)
                await site.nc.publish(SUBJECT_INVOKE, orjson.dumps(body), reply=inbox)
                while True:
                    message = await subscription.next_msg(timeout=15)
                    said = orjson.loads(message.data)
                    begun += "delta" in said and not text
                    text += said.get("delta", "")
                    if "Beamline-Stream-End" in (message.headers or {}):
                        await subscription.unsubscribe()
                        return text, "usage" in said

            tasks = [asyncio.ensure_future(over_http() if door == "http" else over_nats()) for _ in range(30)]
            await eventually(lambda: begun == 30, "all streams have begun")
            process.process.terminate()
            assert await asyncio.gather(*tasks) == [("word " * 12, True)] * 30
        assert await process.wait() == 0


def events_of(text: str) -> list[str]:
    return [row.rpartition("data: ")[2] for row in text.split("\n\n") if row.strip()]
