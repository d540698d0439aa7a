"""How a router keeps its table: hints, polls, outages of PostgreSQL and NATS, broken rows, a start from a
file.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import structlog

from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPostgres
from beamline_contract.names import SUBJECT_INVOKE, SUBJECT_ROUTER_PROBE, SUBJECT_ROUTER_STATUS
from beamline_registry.migrate import migrate, packaged
from beamline_registry.port import Delta
from beamline_registry.reader import PostgresReader
from beamline_router.app import StartError, run
from beamline_router.edges import snapshot_file

from .conftest import PIPELINE, RECORDS, Site, eventually, extension, open_site, policy, running


async def test_a_hint_brings_a_change_into_the_next_request(site: Site) -> None:
    async with running(site.settings(poll_seconds=3600)) as served:
        assert (await served.route({"prompt": "Hi"})).json()["output"] == "echo: hi"
        without_pre = policy("default", PIPELINE[1:], generation=2)
        revision = await site.put(without_pre)
        await eventually(lambda: served.router.refresher.revision == revision, "the hint is followed")
        assert (await served.route({"prompt": "Hi"})).json()["output"] == "echo: Hi"


async def test_without_a_hint_the_poll_converges(site: Site) -> None:
    async with running(site.settings(poll_seconds=0.1)) as served:
        revision = await site.put(policy("default", PIPELINE[1:], generation=2), hint=False)
        await eventually(lambda: served.router.refresher.revision == revision, "the poll finds it")


async def test_a_hint_of_what_is_known_and_nonsense_cause_no_read(site: Site) -> None:
    async with running(site.settings(poll_seconds=3600)) as served:
        reads = served.router.refresher.stats.load_count
        for _ in range(20):
            await site.hint(served.router.refresher.revision)
        for junk in (b"", b"{", b"[]", b'{"revision":"x"}', b"null"):
            await site.nc.publish("beamline.registry.v1.changed", junk)
        await site.nc.flush()
        assert await served.answers()
        assert served.router.refresher.stats.load_count == reads


async def test_an_extension_that_leaves_the_registry_leaves_the_table_and_the_metrics(site: Site) -> None:
    async with running(site.settings(poll_seconds=3600)) as served:
        assert await served.answers()
        assert 'extension_id="mask"' in (await served.http.get("/metrics")).text
        await site.put(policy("default", PIPELINE[:3], generation=2))
        await site.remove(RECORDS[3])
        await eventually(lambda: served.router.refresher.stats.total_extensions == 3, "it has left")
        assert 'extension_id="mask"' not in (await served.http.get("/metrics")).text


async def test_a_broken_row_is_isolated_reported_and_its_last_good_version_serves_on(site: Site) -> None:
    await site.listen(SUBJECT_ROUTER_STATUS)
    async with running(site.settings(poll_seconds=3600)) as served:
        broken = policy("default", [{"action": "select_provider"}], generation=2)
        revision = await site.put(broken, extension("more", "provider"))
        await eventually(lambda: served.router.refresher.revision == revision, "the change is taken in")
        assert await served.answers()
        assert served.router.refresher.stats.total_extensions == 5, "everything else updates"

        def reported() -> Any:
            return next(
                (s for s in site.heard[SUBJECT_ROUTER_STATUS] if s["refused"] and s["revision"] == revision),
                None,
            )

        [refused] = (await eventually(reported, "the refusal is published"))["refused"]
        assert (refused["kind"], refused["id"], refused["generation"]) == ("RoutingPolicy", "default", 2)
        assert refused["field"].startswith("spec.steps[0]")
        assert refused["reason"]


async def test_a_row_with_a_number_that_no_reader_of_json_holds_is_isolated_like_any_other(
    site: Site,
) -> None:
    async with running(site.settings(poll_seconds=3600)) as served:
        connection = await asyncpg.connect(site.database_url)
        await connection.execute(
            "UPDATE extensions SET config = '{\"n\": 1e400}', revision = revision + 1 WHERE id = 'mask'"
        )
        await connection.execute("UPDATE registry_revision SET revision = revision + 1")
        await connection.close()
        revision = await site.put(extension("more", "provider"))
        await eventually(lambda: served.router.refresher.revision == revision, "the change is taken in")
        assert [(refused.id, refused.field) for refused in served.router.refresher.refused] == [
            ("mask", "spec.config")
        ]
        assert served.router.refresher.stats.total_extensions == 5, "everything else updates"
        assert await served.answers()


async def test_a_fault_in_reading_costs_a_read_and_not_the_router(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def faulty(_reader: PostgresReader, _since: int) -> Delta:
        raise LookupError("a row unlike any other")

    async with running(site.settings(poll_seconds=3600)) as served:
        with monkeypatch.context() as patch:
            patch.setattr(PostgresReader, "read", faulty)
            served.router.refresher.wake()
            await eventually(lambda: served.router.refresher.stats.error_count, "a read fails")
            assert await served.answers()
        served.router.refresher.wake()
        await eventually(lambda: served.router.refresher.registry_answers, "reads work again")
        assert not served.task.done()


async def test_a_status_comes_after_each_swap_on_a_probe_and_with_leaving_at_the_end(site: Site) -> None:
    await site.listen(SUBJECT_ROUTER_STATUS)
    heard = site.heard.setdefault(SUBJECT_ROUTER_STATUS, [])
    async with running(site.settings(instance="r-1", poll_seconds=3600)):
        revision = await site.put(policy("default", PIPELINE[1:], generation=2))
        await eventually(lambda: any(s["revision"] == revision for s in heard), "a status after the swap")
        before = len(heard)
        await site.nc.publish(SUBJECT_ROUTER_PROBE, b"")
        await eventually(lambda: len(heard) > before, "an answer to the probe")
        assert not any(status["leaving"] for status in heard)
    await eventually(lambda: heard[-1]["leaving"], "the last word")
    assert {status["instance"] for status in heard} == {"r-1"}
    assert heard[-1]["policies"] == 1
    assert heard[-1]["extensions"] == 4


async def test_postgresql_stopped_changes_nothing_for_requests_and_its_return_is_noticed(
    nats_server: LocalNats, own_postgres: LocalPostgres
) -> None:
    async with open_site(nats_server.url, own_postgres.url()) as site, AsyncExitStack() as stack:
        served = await stack.enter_async_context(running(site.settings(poll_seconds=0.1)))
        assert await served.answers()
        own_postgres.stop()
        await eventually(lambda: served.router.refresher.stats.error_count >= 2, "reads fail")
        assert all([await served.answers() for _ in range(20)])
        readiness = await served.readiness()
        assert (readiness["status"], readiness["stale"]["registry"]) == ("stale", True)
        assert (await served.http.get("/readyz")).status_code == 200
        await asyncio.to_thread(own_postgres.start)
        served.router.refresher.wake()
        await eventually(lambda: served.router.refresher.registry_answers, "reads work again")
        assert (await served.readiness())["status"] == "ready"


async def test_nats_restarted_under_load_gives_typed_errors_then_answers_and_the_table_is_read_again(
    own_nats: LocalNats, database_url: str
) -> None:
    async with open_site(own_nats.url, database_url) as site, AsyncExitStack() as stack:
        served = await stack.enter_async_context(running(site.settings(poll_seconds=3600)))
        reads = served.router.refresher.stats.load_count
        statuses: set[int] = set()
        wrong: list[str] = []
        going = True

        def right(body: dict[str, Any]) -> bool:
            # A pre or post step that fails is skipped, visibly; everything else must be as always.
            lowered = body["steps"][0]["outcome"] == "ok"
            return bool(body["output"] == ("echo: hi" if lowered else "echo: Hi"))

        async def load() -> None:
            while going:
                reply = await served.route({"prompt": "Hi"}, **{"beamline-deadline-ms": "1000"})
                statuses.add(reply.status_code)
                if reply.status_code == 200 and not right(reply.json()):
                    wrong.append(reply.text)
                await asyncio.sleep(0.005)

        tasks = [asyncio.ensure_future(load()) for _ in range(8)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(own_nats.stop)
        await eventually(served.readiness, "readiness is answered")
        assert (await served.readiness())["stale"]["nats"] is True
        await asyncio.to_thread(own_nats.start)
        await eventually(served.answers, "requests are answered again")
        going = False
        await asyncio.gather(*tasks)
        assert statuses <= {200, 503, 504}
        assert not wrong
        await eventually(
            lambda: served.router.refresher.stats.load_count > reads, "hints may have been missed"
        )
        over_nats = await site.nc.request(SUBJECT_INVOKE, b'{"prompt":"Hi"}', timeout=10)
        assert right(orjson.loads(over_nats.data)), "the NATS door is open again"


async def test_a_router_started_without_postgresql_and_nats_waits_and_serves_when_they_come(
    own_nats: LocalNats, own_postgres: LocalPostgres
) -> None:
    async with open_site(own_nats.url, own_postgres.url()) as site:
        settings = site.settings(http_port=0)
        own_nats.stop()
        url = own_postgres.url()
        own_postgres.stop()
        stop = asyncio.Event()
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        late = replace_url(settings, url)
        task = asyncio.ensure_future(run(late, ready=ready.set_result, stop=stop))
        try:
            await asyncio.sleep(0.3)
            assert not task.done()
            assert not ready.done()
            await asyncio.to_thread(own_postgres.start)
            await asyncio.to_thread(own_nats.start)
            await asyncio.wait_for(ready, 30)
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)


def replace_url(settings: Any, url: str) -> Any:
    return settings.model_copy(update={"database_url": url})


async def test_a_router_starts_from_its_file_without_postgresql_and_says_that_it_is_stale(
    site: Site, tmp_path: Path
) -> None:
    file = tmp_path / "state" / "snapshot"
    async with running(site.settings(snapshot_file=file)) as served:
        await eventually(file.exists, "the table is saved")
        revision = served.router.refresher.revision
    nowhere = f"postgresql://nobody@/gone?host={tmp_path}"
    async with running(site.settings(snapshot_file=file, database_url=nowhere)) as served:
        assert (await served.route({"prompt": "Hi"})).json()["output"] == "echo: hi"
        readiness = await served.readiness()
        assert readiness["status"] == "stale"
        assert readiness["stale"] == {"registry": True, "nats": False, "from_file": True}
        assert readiness["revision"] == revision


async def test_a_file_that_could_not_be_written_is_written_when_the_disk_takes_it_again(
    site: Site, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "state"
    in_the_way.write_text("no folder")
    file = in_the_way / "snapshot"
    with structlog.testing.capture_logs() as lines:
        async with running(site.settings(snapshot_file=file)):
            await eventually(lambda: _named("snapshot_file.not_saved", lines), "it says so")
            in_the_way.unlink()
        assert _named("snapshot_file.saved_again", lines)
    assert snapshot_file.load(file) is not None


def _named(event: str, lines: Sequence[Mapping[str, Any]]) -> bool:
    return any(line["event"] == event for line in lines)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda raw: raw[:-3], "checksum", id="cut short"),
        pytest.param(lambda raw: raw.replace(b"echo", b"ecHo"), "checksum", id="one letter changed"),
        pytest.param(lambda raw: raw.replace(b" 1 ", b" 2 ", 1), "schema version 2", id="of a later version"),
        pytest.param(lambda raw: raw.replace(b" 1 ", b" 0 ", 1), "schema version 0", id="of an earlier one"),
        pytest.param(lambda _: b"junk", "not a snapshot file", id="something else"),
        pytest.param(lambda _: b"", "not a snapshot file", id="empty"),
    ],
)
def test_a_file_that_can_not_be_trusted_is_not_read(
    tmp_path: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    file = tmp_path / "snapshot"
    snapshot_file.save(file, 5, RECORDS, [])
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(snapshot_file.SnapshotFileError, match=words):
        snapshot_file.load(file)


async def test_with_a_damaged_file_the_registry_is_read_instead(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "snapshot"
    snapshot_file.save(file, 5, RECORDS, [])
    await asyncio.to_thread(file.write_bytes, b"junk")
    async with running(site.settings(snapshot_file=file)) as served:
        assert await served.answers()


def test_a_saved_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "snapshot"
    snapshot_file.save(file, 7, [replace(RECORDS[0], config={"a": [1, None]})], [policy("default", PIPELINE)])
    saved = snapshot_file.load(file)
    assert saved is not None
    assert (saved.revision, saved.extensions[0].config, saved.policies[0].policy["steps"]) == (
        7,
        {"a": [1, None]},
        PIPELINE,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"], "nothing is left beside it"


async def test_a_database_with_a_foreign_schema_is_refused_in_one_sentence(
    nats_server: LocalNats, database_url: str
) -> None:
    await migrate(database_url)
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE schema_migrations SET checksum = 'another'")
    await connection.close()
    settings = Site(nats_server.url, database_url, None, None).settings()  # type: ignore[arg-type]  # only its addresses
    with pytest.raises(StartError, match="was edited after it was applied") as refused:
        await asyncio.wait_for(run(settings), 20)
    assert refused.value.exit_code == 78
    assert "\n" not in str(refused.value)


async def test_a_migration_that_is_still_to_come_is_waited_for(
    nats_server: LocalNats, database_url: str
) -> None:
    await migrate(database_url, migrations=packaged()[:2])
    settings = Site(nats_server.url, database_url, None, None).settings()  # type: ignore[arg-type]  # only its addresses
    stop, ready = asyncio.Event(), asyncio.Event()
    router = asyncio.create_task(run(settings, stop=stop, ready=lambda _: ready.set()))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ready.wait(), 1)
    assert not router.done(), "it neither serves nor ends"
    await migrate(database_url)
    await asyncio.wait_for(ready.wait(), 20)
    stop.set()
    await router


async def test_a_taken_port_is_one_clear_sentence(site: Site) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(StartError, match=r"127\.0\.0\.1:\d+ for HTTP is taken"),
    ):
        await run(site.settings(http_port=taken.getsockname()[1]))


async def test_a_registry_that_went_back_in_time_is_read_anew(site: Site) -> None:
    async with running(site.settings(poll_seconds=3600)) as served:
        await site.put(extension("extra", "provider"))
        await eventually(
            lambda: served.router.refresher.stats.total_extensions == 5, "the extra one is there"
        )
        connection = await asyncpg.connect(site.database_url)
        await connection.execute("DELETE FROM extensions WHERE id = 'extra'")
        await connection.execute("UPDATE registry_revision SET revision = 1")
        await connection.close()
        served.router.refresher.wake()
        await eventually(
            lambda: served.router.refresher.stats.total_extensions == 4, "the restored table serves"
        )
        assert await served.answers()


async def test_a_registry_that_lost_everything_takes_nothing_away_until_it_is_filled_again(
    site: Site,
) -> None:
    async with running(site.settings(poll_seconds=3600)) as served:
        await site.put(extension("extra", "provider"))
        await eventually(
            lambda: served.router.refresher.stats.total_extensions == 5, "the extra one is there"
        )
        loads = served.router.refresher.stats.load_count
        connection = await asyncpg.connect(site.database_url)
        await connection.execute(
            "DELETE FROM extensions; DELETE FROM routing_policies; DELETE FROM tombstones"
        )
        await connection.execute("UPDATE registry_revision SET revision = 0, horizon = 0")
        served.router.refresher.wake()
        await eventually(
            lambda: served.router.refresher.stats.load_count > loads + 1, "the empty registry was read twice"
        )
        assert await served.answers()
        assert (await served.readiness())["revision"] > 1
        for record in (policy("default", PIPELINE), *RECORDS):
            await site.put(record)
            assert await served.answers()
        await connection.close()
        await eventually(
            lambda: served.router.refresher.stats.total_extensions == 4, "the table that was filled serves"
        )
        assert await served.answers()
