"""What every registry does with rows, the fake and PostgreSQL alike."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from beamline_registry.port import (
    AuditQuery,
    Delta,
    FencedError,
    InvalidRecordError,
    Outcome,
    Remove,
    Retain,
    RowIdentity,
    Tombstone,
    Upsert,
)
from harness.registry_world import World, applied, extension, policy, remove


class TestReading:
    async def test_an_empty_registry_is_at_revision_0(self, world: World) -> None:
        assert await world.registry.read(0) == Delta(revision=0, full=True)

    async def test_what_was_written_comes_back_with_its_revision(self, world: World) -> None:
        record = extension(
            timeout_ms=1000, retry=0, enabled=False, metadata={"team": "red"}, version="v2", weight=7
        )
        await world.put(record, policy())
        delta = await world.registry.read(0)
        assert delta.full
        assert delta.revision == 1
        assert delta.extensions == [replace(record, revision=1)]
        assert delta.policies == [replace(policy(), revision=1)]

    async def test_a_reader_that_is_up_to_date_gets_nothing(self, world: World) -> None:
        await world.put(extension())
        assert await world.registry.read(1) == Delta(revision=1, full=False)

    async def test_a_reader_gets_only_what_is_newer(self, world: World) -> None:
        await world.put(extension("a"), policy("p"))
        await world.put(extension("b"))
        await world.put(policy("p", generation=2))
        delta = await world.registry.read(1)
        assert (delta.full, delta.revision) == (False, 3)
        assert [row.id for row in delta.extensions] == ["b"]
        assert [(row.id, row.generation) for row in delta.policies] == [("p", 2)]

    async def test_a_removed_row_leaves_a_tombstone(self, world: World) -> None:
        await world.put(extension(), policy())
        await world.write(remove(extension()), remove(policy()))
        delta = await world.registry.read(1)
        assert delta.removed == [Tombstone("Extension", "mock", 2), Tombstone("RoutingPolicy", "default", 2)]
        assert (await world.registry.read(0)).removed == []

    async def test_a_row_that_came_back_leaves_no_tombstone(self, world: World) -> None:
        await world.put(extension())
        await world.write(remove(extension()))
        await world.put(extension(uid="another"))
        delta = await world.registry.read(1)
        assert delta.removed == []
        assert [row.uid for row in delta.extensions] == ["another"]

    async def test_a_reader_ahead_of_the_registry_gets_everything(self, world: World) -> None:
        await world.put(extension())
        assert (await world.registry.read(99)).full

    async def test_a_reader_behind_the_kept_tombstones_gets_everything(self, world: World) -> None:
        await world.put(extension("a"), extension("b"), extension("c"))
        await world.write(remove(extension("a")))
        await world.write(remove(extension("b")))
        assert await world.registry.compact(1, epoch=world.epoch) == 1
        behind, near = await world.registry.read(1), await world.registry.read(2)
        assert (behind.full, [row.id for row in behind.extensions]) == (True, ["c"])
        assert (near.full, near.removed) == (False, [Tombstone("Extension", "b", 3)])

    async def test_compacting_again_with_a_larger_reserve_brings_nothing_back(self, world: World) -> None:
        await world.put(extension())
        await world.write(remove(extension()))
        assert await world.registry.compact(0, epoch=world.epoch) == 1
        assert await world.registry.compact(100, epoch=world.epoch) == 0
        assert (await world.registry.read(1)).full


class TestWriting:
    async def test_a_batch_is_one_revision(self, world: World) -> None:
        results = await world.put(extension("a"), extension("b"), policy())
        assert [(result.outcome, result.revision) for result in results] == [(Outcome.WRITTEN, 1)] * 3
        assert (await world.registry.read(0)).revision == 1

    async def test_an_empty_batch_changes_nothing(self, world: World) -> None:
        assert await world.write() == []
        assert (await world.registry.read(0)).revision == 0

    async def test_the_same_again_is_unchanged_at_its_old_revision(self, world: World) -> None:
        await world.put(extension())
        await world.put(extension("other"))
        (result,) = await world.put(extension())
        assert (result.outcome, result.revision) == (Outcome.UNCHANGED, 1)
        assert (await world.registry.read(0)).revision == 2
        assert await world.actions("mock") == ["created"]

    async def test_the_same_with_keys_in_another_order_and_numbers_in_another_spelling_is_unchanged(
        self, world: World
    ) -> None:
        await world.put(extension(config={"a": 1, "b": 1e20, "c": -0.0, "d": 100.0}))
        (result,) = await world.put(extension(config={"d": 1e2, "c": 0, "b": 1e20, "a": 1.0}))
        assert result.outcome is Outcome.UNCHANGED

    async def test_true_is_not_one(self, world: World) -> None:
        await world.put(extension(config={"flag": 1}))
        (result,) = await world.put(extension(config={"flag": True}))
        assert result.outcome is Outcome.WRITTEN

    async def test_a_new_generation_is_written_even_with_the_same_content(self, world: World) -> None:
        await world.put(extension())
        (result,) = await world.put(extension(generation=2))
        assert (result.outcome, result.revision) == (Outcome.WRITTEN, 2)

    async def test_other_content_of_the_same_generation_is_written(self, world: World) -> None:
        await world.put(extension())
        (result,) = await world.put(extension(spec={"concurrency": 64, "new": True}))
        assert (result.outcome, result.revision) == (Outcome.WRITTEN, 2)

    async def test_an_older_generation_changes_nothing(self, world: World) -> None:
        await world.put(extension(generation=3))
        (result,) = await world.put(extension(generation=2, timeout_ms=1))
        assert (result.outcome, result.revision) == (Outcome.STALE, 1)
        assert (await world.registry.read(0)).extensions[0].generation == 3

    async def test_removing_an_older_generation_changes_nothing(self, world: World) -> None:
        await world.put(extension(generation=3))
        (result,) = await world.write(remove(extension(generation=2)))
        assert result.outcome is Outcome.STALE

    async def test_an_id_of_another_object_is_a_conflict_that_names_its_holder(self, world: World) -> None:
        await world.put(extension())
        (result,) = await world.put(extension(namespace="red", uid="another"))
        assert (result.outcome, result.holder) == (Outcome.CONFLICT, "default/mock")

    async def test_a_subject_of_another_object_is_a_conflict_that_names_its_holder(
        self, world: World
    ) -> None:
        await world.put(extension("a", subject="beamline.provider.x.v1"))
        (result,) = await world.put(extension("b", subject="beamline.provider.x.v1"))
        assert (result.outcome, result.holder) == (Outcome.CONFLICT, "default/a")
        assert (await world.registry.read(0)).revision == 1

    async def test_two_of_a_batch_with_one_subject_conflict_and_the_rest_is_written(
        self, world: World
    ) -> None:
        results = await world.put(
            extension("a", subject="beamline.x.v1"), extension("b", subject="beamline.x.v1"), extension("c")
        )
        assert [result.outcome for result in results] == ["written", "conflict", "written"]
        assert [row.id for row in (await world.registry.read(0)).extensions] == ["a", "c"]

    async def test_an_extension_and_a_policy_may_have_the_same_id(self, world: World) -> None:
        results = await world.put(extension("same"), policy("same"))
        assert {result.outcome for result in results} == {Outcome.WRITTEN}

    async def test_a_remove_frees_the_id_for_the_rest_of_its_batch(self, world: World) -> None:
        await world.put(extension(generation=5))
        results = await world.write(remove(extension(generation=5)), Upsert(extension(uid="new"), "anna"))
        assert [result.outcome for result in results] == ["written", "written"]
        (row,) = (await world.registry.read(0)).extensions
        assert (row.uid, row.generation, row.revision) == ("new", 1, 2)
        assert await world.actions() == ["created", "deleted", "created"]

    async def test_a_remove_frees_the_subject_for_the_rest_of_its_batch(self, world: World) -> None:
        await world.put(extension("a", subject="beamline.x.v1"))
        results = await world.write(
            remove(extension("a")), Upsert(extension("b", subject="beamline.x.v1"), "anna")
        )
        assert [result.outcome for result in results] == ["written", "written"]

    async def test_the_same_uid_starts_again_at_generation_1_after_its_removal(self, world: World) -> None:
        await world.put(extension(generation=9))
        await world.write(remove(extension(generation=9)), Upsert(extension(generation=1), "anna"))
        assert (await world.registry.read(0)).extensions[0].generation == 1

    async def test_written_and_removed_in_one_batch_is_gone(self, world: World) -> None:
        await world.write(Upsert(extension(), "anna"), remove(extension()))
        assert (await world.registry.read(0)).extensions == []
        assert await world.actions() == ["created", "deleted"]

    async def test_removing_what_is_not_there_changes_nothing(self, world: World) -> None:
        await world.put(extension())
        (result,) = await world.write(remove(extension("other")))
        assert (result.outcome, result.revision) == (Outcome.UNCHANGED, 1)
        assert (await world.registry.read(0)).revision == 1

    async def test_removing_another_uid_changes_nothing(self, world: World) -> None:
        await world.put(extension())
        (result,) = await world.write(remove(extension(), uid="another"))
        assert result.outcome is Outcome.UNCHANGED
        assert len((await world.registry.read(0)).extensions) == 1

    async def test_removing_without_a_uid_takes_whatever_is_there(self, world: World) -> None:
        await world.put(extension(generation=4))
        (result,) = await world.write(remove(extension(), uid="", generation=0))
        assert result.outcome is Outcome.WRITTEN
        assert (await world.registry.read(0)).extensions == []

    async def test_an_unknown_creation_time_becomes_the_time_of_the_write_and_stays(
        self, world: World
    ) -> None:
        await world.put(extension(created_at=""))
        first = (await world.registry.read(0)).extensions[0].created_at
        assert first.endswith("Z")
        (again,) = await world.put(extension(created_at=""))
        await world.put(extension(created_at="", generation=2))
        assert again.outcome is Outcome.UNCHANGED
        assert (await world.registry.read(0)).extensions[0].created_at == first

    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            pytest.param("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z", id="an offset becomes UTC"),
            pytest.param("2026-01-01T00:00:00.250Z", "2026-01-01T00:00:00.250000Z", id="fractions are kept"),
            pytest.param("2026-01-01 00:00:00", "2026-01-01T00:00:00Z", id="without an offset it is UTC"),
        ],
    )
    async def test_creation_times_are_spelled_one_way(self, world: World, given: str, stored: str) -> None:
        await world.put(extension(created_at=given))
        assert (await world.registry.read(0)).extensions[0].created_at == stored

    async def test_an_unreadable_creation_time_counts_as_unknown(self, world: World) -> None:
        (result,) = await world.put(extension(created_at="yesterday"))
        assert result.outcome is Outcome.WRITTEN

    async def test_the_inventory_says_whose_rows_there_are(self, world: World) -> None:
        await world.put(policy(), extension("b", generation=7), extension("a"))
        assert await world.registry.inventory() == [
            RowIdentity("Extension", "a", "uid-a", 1, "default", "a"),
            RowIdentity("Extension", "b", "uid-b", 7, "default", "b"),
            RowIdentity("RoutingPolicy", "default", "uid-policy-default", 1, "default", "default"),
        ]

    async def test_the_inventory_marks_rows_that_outlive_their_object(self, world: World) -> None:
        await world.put(extension("kept", spec={"deletionPolicy": "Retain"}), extension("plain"), policy())
        assert [(row.id, row.retained) for row in await world.registry.inventory()] == [
            ("kept", True),
            ("plain", False),
            ("default", False),
        ]

    async def test_a_row_that_is_to_outlive_its_object_says_so_and_stays_as_it_is(self, world: World) -> None:
        await world.put(extension("kept", timeout_ms=77, spec={"deletionPolicy": "Delete", "retry": 2}))
        ours, theirs = Retain("kept", "uid-kept", 9, "alice"), Retain("kept", "uid-other", 9, "alice")
        absent = Retain("absent", "uid-absent", 1, "alice")
        results = await world.registry.write([theirs, absent, ours, ours], epoch=world.epoch)
        assert [one.outcome for one in results] == [
            Outcome.UNCHANGED, Outcome.UNCHANGED, Outcome.WRITTEN, Outcome.UNCHANGED,
        ]  # fmt: skip
        (row,) = (await world.registry.read(0)).extensions
        assert (row.timeout_ms, row.spec, row.uid) == (
            77,
            {"deletionPolicy": "Retain", "retry": 2},
            "uid-kept",
        )
        assert [one.retained for one in await world.registry.inventory()] == [True]
        newest = (await world.registry.audit(AuditQuery()))[0]
        assert (newest.action, newest.changed_by) == ("updated", "alice")

    async def test_what_a_caller_changes_after_the_write_does_not_reach_the_registry(
        self, world: World
    ) -> None:
        config = {"mode": "echo"}
        await world.put(extension(config=config))
        config["mode"] = "broken"
        assert (await world.registry.read(0)).extensions[0].config == {"mode": "echo"}


ODD = {
    "'; DROP TABLE extensions; --": 'x" OR 1=1',
    "$1": "$2::text",
    "a.b": {"c'd": [None, True, 1.5, "%s", "{}", "\\u0000", "\\"]},
    "": "empty key",
    "ключ \U0001f511": "\u2028\x7f\x01\ue000",
    "big": 2**63 - 1,
    "small": 5e-324,
}


class TestData:
    async def test_odd_keys_and_sql_are_data(self, world: World) -> None:
        record = extension(config=ODD, metadata=ODD, spec=ODD)
        await world.put(record, policy(policy=ODD))
        delta = await world.registry.read(0)
        assert delta.extensions[0] == replace(record, revision=1)
        assert delta.policies[0].policy == ODD
        assert await world.registry.verify_audit() == 2

    @pytest.mark.parametrize(
        "config",
        [
            pytest.param({"a": "\0"}, id="U+0000"),
            pytest.param({"\0": 1}, id="U+0000 in a key"),
            pytest.param({"a": "\ud800"}, id="half a surrogate pair"),
            pytest.param({"a": float("nan")}, id="not a number"),
            pytest.param({"a": 2**64}, id="an integer beyond 64 bits"),
            pytest.param({"a": {1: 2}}, id="a key that is no string"),
            pytest.param({"a": datetime(2026, 1, 1, tzinfo=UTC)}, id="a date"),
        ],
    )
    async def test_what_cannot_be_stored_is_named_and_nothing_is_written(
        self, world: World, config: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidRecordError) as caught:
            await world.put(extension("good"), extension("bad", config=config))
        assert (caught.value.kind, caught.value.id) == ("Extension", "bad")
        assert (await world.registry.read(0)).revision == 0


class TestFencing:
    async def test_epochs_only_grow(self, world: World) -> None:
        first = await world.registry.acquire_epoch("a")
        assert await world.registry.acquire_epoch("b") > first

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda r, epoch: r.write([Upsert(extension(), "old")], epoch=epoch), id="writing"),
            pytest.param(lambda r, epoch: r.fold_health([], epoch=epoch), id="folding health"),
            pytest.param(lambda r, epoch: r.compact(0, epoch=epoch), id="compacting"),
        ],
    )
    async def test_after_a_newer_epoch_the_old_leader_is_refused(self, world: World, call: Any) -> None:
        await world.registry.acquire_epoch("the successor")
        with pytest.raises(FencedError):
            await call(world.registry, world.epoch)
        assert (await world.registry.read(0)).revision == 0

    async def test_an_epoch_that_was_never_given_is_refused(self, world: World) -> None:
        with pytest.raises(FencedError):
            await world.registry.write([Upsert(extension(), "?")], epoch=world.epoch + 1)


class TestTogether:
    async def test_a_reader_that_follows_deltas_ends_with_what_a_full_read_gives(self, world: World) -> None:
        """Four writers change, remove and bring back eight ids and two policies; two readers follow."""
        busy = asyncio.Event()

        async def writer(number: int) -> None:
            for turn in range(1, 13):
                name = f"e{(number * 5 + turn * 3) % 8}"
                if (number + turn) % 4 == 0:
                    await world.write(Remove("Extension", name, "", 0, f"writer {number}"))
                else:
                    await world.put(
                        extension(name, generation=turn, weight=number),
                        policy(f"p{turn % 2}", generation=turn),
                    )
                if turn % 5 == 0:
                    await world.registry.compact(4, epoch=world.epoch)

        async def reader() -> tuple[int, dict[tuple[str, str], Any]]:
            revision, table = 0, dict[tuple[str, str], Any]()
            last = False
            while True:
                delta = await world.registry.read(revision)
                assert delta.full or delta.revision >= revision
                revision, table = delta.revision, applied(table, delta)
                if last:
                    return revision, table
                last = busy.is_set()
                await asyncio.sleep(0)

        readers = [asyncio.create_task(reader()) for _ in range(2)]
        await asyncio.gather(*(writer(number) for number in range(4)))
        busy.set()
        everything = await world.registry.read(0)
        for task in readers:
            assert await task == (everything.revision, applied({}, everything))
        await world.registry.verify_audit()
