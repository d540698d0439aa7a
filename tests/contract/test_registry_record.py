"""What every registry keeps about the past, the fake and PostgreSQL alike: audit and health."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from beamline_contract.reports import HealthDelta
from beamline_registry.chain import hash_of
from beamline_registry.port import (
    AuditQuery,
    Outcome,
    Upsert,
)
from harness.registry_world import World, extension, policy, remove


class TestAudit:
    async def test_every_change_has_one_row_with_who_what_and_when(self, world: World) -> None:
        await world.put(extension(config={"model": "a"}, timeout_ms=1000))
        await world.write(Upsert(extension(config={"model": "b"}, timeout_ms=2000, generation=2), "ben"))
        updated, created = await world.registry.audit(AuditQuery())
        assert (created.action, created.object_id, created.kind, created.uid, created.changed_by) == (
            "created", "mock", "Extension", "uid-mock", "anna",
        )  # fmt: skip
        assert created.changes["config.model"] == {"from": None, "to": "a"}
        assert (updated.action, updated.changed_by, updated.generation) == ("updated", "ben", 2)
        assert updated.changes == {
            "config.model": {"from": "a", "to": "b"},
            "generation": {"from": 1, "to": 2},
            "timeout_ms": {"from": 1000, "to": 2000},
        }
        assert updated.previous_hash == created.hash
        assert datetime.fromisoformat(updated.timestamp) >= datetime.fromisoformat(created.timestamp)

    async def test_a_flip_of_enabled_is_called_that(self, world: World) -> None:
        await world.put(extension())
        await world.put(extension(generation=2, enabled=False, timeout_ms=1))
        await world.put(extension(generation=3, enabled=True))
        assert await world.actions() == ["created", "disabled", "enabled"]
        disabled = (await world.registry.audit(AuditQuery()))[1]
        assert {"enabled", "timeout_ms"} <= disabled.changes.keys()

    async def test_the_audit_outlives_its_object(self, world: World) -> None:
        await world.put(extension())
        await world.write(remove(extension(), generation=2))
        assert (await world.registry.read(0)).extensions == []
        assert await world.actions("mock") == ["created", "deleted"]
        deleted = (await world.registry.audit(AuditQuery()))[0]
        assert deleted.changes["subject"] == {"from": "beamline.provider.mock.v1", "to": None}

    async def test_writing_again_after_an_unknown_commit_adds_no_row(self, world: World) -> None:
        batch = [Upsert(extension(), "anna"), Upsert(policy(), "anna")]
        await world.write(*batch)
        results = await world.write(*batch)
        assert {result.outcome for result in results} == {Outcome.UNCHANGED}
        assert await world.registry.verify_audit() == 2

    async def test_every_change_of_a_projection_is_noted_also_within_one_generation(
        self, world: World
    ) -> None:
        await world.put(extension())
        for weight in (1, 2, 1):
            await world.put(extension(weight=weight))
            await world.put(extension(weight=weight))
        assert await world.actions() == ["created", "updated", "updated", "updated"]
        weights = [row.changes.get("weight") for row in await world.registry.audit(AuditQuery(limit=3))]
        assert weights == [{"from": 2, "to": 1}, {"from": 1, "to": 2}, {"from": 100, "to": 1}]
        assert await world.registry.verify_audit() == 4

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            pytest.param("BEN", ["request-2"], id="who, whatever the case"),
            pytest.param("request-1", ["request-1"], id="the request"),
            pytest.param("gpt-ü", ["request-2"], id="a value, with letters beyond ASCII"),
            pytest.param("config.model", ["request-2", "request-1"], id="a field"),
            pytest.param("created", ["request-1"], id="the action"),
            pytest.param("50%_", [], id="wildcards are plain text"),
            pytest.param("nowhere", [], id="nothing"),
        ],
    )
    async def test_rows_are_found_by_text(self, world: World, text: str, found: list[str]) -> None:
        await world.write(Upsert(extension(config={"model": "a 500"}), "ada", "request-1"))
        await world.write(Upsert(extension(config={"model": "gpt-ü"}, generation=2), "ben", "request-2"))
        rows = await world.registry.audit(AuditQuery(text=text))
        assert [row.request_id for row in rows] == found

    async def test_the_request_that_made_a_change_is_kept_and_chained(self, world: World) -> None:
        await world.write(Upsert(extension(), "ada (beamline-admin)", "request-1"))
        await world.write(replace(remove(extension()), request_id="request-2"))
        rows = await world.registry.audit(AuditQuery())
        assert [row.request_id for row in rows] == ["request-2", "request-1"]
        assert hash_of(replace(rows[0], request_id="request-3")) != rows[0].hash
        assert await world.registry.verify_audit() == 2

    async def test_secrets_never_get_into_the_log(self, world: World) -> None:
        await world.put(
            extension(config={"api_key": "sk-1", "max_tokens": 5, "nested": {"password": "pw-1"}})
        )
        await world.put(
            extension(
                generation=2, config={"api_key": "sk-2", "max_tokens": 6, "nested": {"password": "pw-2"}}
            )
        )
        rows = await world.registry.audit(AuditQuery())
        assert not any(secret in str(rows) for secret in ("sk-1", "sk-2", "pw-1", "pw-2"))
        assert rows[0].changes["config.api_key"] == {"from": "(masked)", "to": "(masked)"}
        assert rows[0].changes["config.max_tokens"] == {"from": 5, "to": 6}

    async def test_rows_are_found_by_object_and_kind_and_page_by_page(self, world: World) -> None:
        await world.put(*(extension(f"e{number}") for number in range(5)), policy("e0"))
        audit = world.registry.audit
        assert [row.kind for row in await audit(AuditQuery(object_id="e0"))] == ["RoutingPolicy", "Extension"]
        assert [row.object_id for row in await audit(AuditQuery(kind="RoutingPolicy"))] == ["e0"]
        first = await audit(AuditQuery(kind="Extension", limit=3))
        second = await audit(AuditQuery(kind="Extension", limit=3, before=first[-1].sequence))
        assert [row.object_id for row in (*first, *second)] == ["e4", "e3", "e2", "e1", "e0"]

    async def test_an_untouched_chain_is_sound_over_batches_and_an_empty_one_too(self, world: World) -> None:
        assert await world.registry.verify_audit() == 0
        for generation in range(1, 6):
            await world.put(
                extension("a", generation=generation), policy(generation=generation, policy={"n": 1e16})
            )
        assert await world.registry.verify_audit() == 10

    async def test_who_is_text_whatever_it_was(self, world: World) -> None:
        await world.write(Upsert(extension(), "an\0na\ud800"))
        assert (await world.registry.audit(AuditQuery()))[0].changed_by == "anna?"


class TestHealth:
    async def test_an_extension_that_was_never_called_has_none(self, world: World) -> None:
        await world.put(extension())
        assert await world.registry.health("mock") is None

    async def test_deltas_of_all_routers_add_up(self, world: World) -> None:
        await world.put(extension())
        await world.fold(
            HealthDelta(
                extension_id="mock",
                success=8,
                failure=2,
                latency_ms_sum=100,
                last_success="2026-01-01T00:00:09Z",
            ),
            HealthDelta(
                extension_id="mock", success=10, latency_ms_sum=300, last_success="2026-01-01T00:00:05Z"
            ),
        )
        await world.fold(HealthDelta(extension_id="mock", failure=5, last_failure="2026-01-01T00:01:00Z"))
        health = await world.registry.health("mock")
        assert health is not None
        assert (health.success_count, health.failure_count) == (18, 7)
        assert (health.window_success, health.window_failure) == (18, 7)
        assert health.avg_latency_ms == pytest.approx(16.0)
        assert (health.last_success, health.last_failure) == ("2026-01-01T00:00:09Z", "2026-01-01T00:01:00Z")
        assert health.score == pytest.approx(72.0)

    async def test_all_of_it_is_there_in_one_look_by_id(self, world: World) -> None:
        assert await world.registry.healths() == []
        await world.put(extension("zeta"), extension("mock"), extension("Idle"))
        await world.fold(
            HealthDelta(extension_id="zeta", failure=1), HealthDelta(extension_id="mock", success=3)
        )
        found = await world.registry.healths()
        assert [(health.extension_id, health.score) for health in found] == [("mock", 100.0), ("zeta", 0.0)]
        assert found == [await world.registry.health("mock"), await world.registry.health("zeta")]

    async def test_the_score_forgets_after_five_minutes_and_the_counts_do_not(self, world: World) -> None:
        await world.put(extension())
        await world.fold(HealthDelta(extension_id="mock", failure=10))
        await world.pass_minutes(3)
        await world.fold(HealthDelta(extension_id="mock", success=10))
        mixed = await world.registry.health("mock")
        await world.pass_minutes(3)
        recovered = await world.registry.health("mock")
        await world.pass_minutes(3)
        idle = await world.registry.health("mock")
        assert mixed is not None
        assert recovered is not None
        assert idle is not None
        assert [mixed.score, recovered.score, idle.score] == [50.0, 100.0, None]
        assert (idle.success_count, idle.failure_count) == (10, 10)

    async def test_unknown_extensions_are_ignored(self, world: World) -> None:
        await world.put(extension())
        await world.fold(
            HealthDelta(extension_id="gone", success=1), HealthDelta(extension_id="mock", success=1)
        )
        assert await world.registry.health("gone") is None
        assert await world.registry.health("mock") is not None

    async def test_nonsense_in_a_report_counts_as_nothing(self, world: World) -> None:
        await world.put(extension())
        await world.fold(
            HealthDelta(extension_id="mock", success=-5, failure=10**30, latency_ms_sum=float("nan")),
            HealthDelta(extension_id="mock", success=1, latency_ms_sum=2, last_success="soon"),
            HealthDelta(extension_id="\0", success=1),
        )
        health = await world.registry.health("mock")
        assert health is not None
        assert (health.success_count, health.failure_count, health.avg_latency_ms) == (1, 0, 2.0)
        assert health.last_success is None

    async def test_counts_go_beyond_32_bits(self, world: World) -> None:
        await world.put(extension())
        for _ in range(3):
            await world.fold(HealthDelta(extension_id="mock", success=2**31))
        health = await world.registry.health("mock")
        assert health is not None
        assert health.success_count == 3 * 2**31

    async def test_health_goes_with_its_extension(self, world: World) -> None:
        await world.put(extension())
        await world.fold(HealthDelta(extension_id="mock", failure=10))
        await world.write(remove(extension()), Upsert(extension(uid="new"), "anna"))
        assert await world.registry.health("mock") is None
