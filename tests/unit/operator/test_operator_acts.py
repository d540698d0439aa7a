"""What people do to what runs is noted with who, when and from what to what, before anything else happens."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_contract.acts import ActNoted, RouterAct, breakers_of
from beamline_contract.objects import ObjectKey, parse_metadata
from beamline_contract.reports import HealthDelta, RouterHealth
from beamline_operator.edges.acts import Acts
from beamline_registry.port import AuditQuery, AuditRecord, RegistryUnavailableError

CANARY = {"steps": [{"weight": 10, "pauseSeconds": 30}], "gates": {"minSamples": 10}}


def act(**fields: Any) -> RouterAct:
    known: dict[str, Any] = {
        "verb": "isolate",
        "extension_id": "guard",
        "before": {"r1": "closed", "r2": "closed"},
        "changed_by": "ada (beamline-admin)",
        "request_id": "req-1",
    }
    return RouterAct.model_validate(known | fields)


async def newest(world: Any) -> AuditRecord:
    rows: list[AuditRecord] = await world.registry.audit(AuditQuery())
    return rows[0]


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        pytest.param({}, {"breaker": {"from": "closed", "to": "isolated"}}, id="all routers agree"),
        pytest.param(
            {"verb": "reset", "before": {"r1": "open", "r2": "isolated"}},
            {
                "breaker.r1": {"from": "open", "to": "closed"},
                "breaker.r2": {"from": "isolated", "to": "closed"},
            },
            id="routers differ",
        ),
        pytest.param(
            {"instance": "r2", "before": {"r2": "open"}},
            {"breaker.r2": {"from": "open", "to": "isolated"}},
            id="one router is meant",
        ),
        pytest.param({"before": {}}, {"breaker": {"from": "closed", "to": "isolated"}}, id="nobody answered"),
    ],
)
def test_an_act_says_what_it_changes(fields: dict[str, Any], changes: dict[str, Any]) -> None:
    assert act(**fields).changes() == changes


def test_the_worst_breaker_of_an_extensions_versions_counts() -> None:
    answers = [
        {
            "instance": "r1",
            "result": {"breakers": {"guard@v1": "open", "guard@v2": "closed", "other": "isolated"}},
        },
        {"instance": "r2", "result": {"breakers": {}}},
        {"instance": "r3", "error": {"code": "INTERNAL"}},
    ]
    assert breakers_of(answers, "guard") == {"r1": "open", "r2": "closed"}


async def test_an_act_on_routers_is_in_the_audit_log_when_its_answer_comes(world: Any) -> None:
    world.extension()
    await world.settle()
    told = Acts(world.reconciler.batcher)
    assert await told(act().model_dump_json().encode()) == ActNoted()
    row = await newest(world)
    assert (row.object_id, row.action, row.changed_by) == ("guard", "updated", "ada (beamline-admin)")
    assert (row.request_id, row.changes) == ("req-1", act().changes())
    assert await world.registry.verify_audit() == 2
    assert world.hints.announced == [1], "no router has anything to read"


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        pytest.param(act(extension_id="nobody").model_dump_json().encode(), "NOT_FOUND", id="of nobody"),
        pytest.param(b"{}", "INVALID_ARGUMENT", id="empty"),
        pytest.param(b"not JSON", "INVALID_ARGUMENT", id="not JSON"),
        pytest.param(b"[" * 300_000, "INVALID_ARGUMENT", id="too large"),
        pytest.param(b'{"verb": "drop"}', "INVALID_ARGUMENT", id="an act that does not exist"),
    ],
)
async def test_what_can_not_be_noted_is_refused(world: Any, payload: bytes, error: str) -> None:
    assert (await Acts(world.reconciler.batcher)(payload)).error == error
    assert await world.registry.audit(AuditQuery()) == []


async def test_while_the_registry_is_away_an_act_is_refused(world: Any) -> None:
    world.extension()
    await world.settle()
    world.registry.outage = RegistryUnavailableError("away")
    assert (await Acts(world.reconciler.batcher)(act().model_dump_json().encode())).error == "UNAVAILABLE"


@pytest.fixture
async def canary(world: Any) -> ObjectKey:
    """A canary in its first step."""
    world.extension()
    await world.settle()
    key: ObjectKey = world.extension("guard-v2", version="v2", versionOf="guard", canary=CANARY)
    await world.settle()
    call = HealthDelta(extension_id="guard_v2", success=20)
    world.controller.on_health(RouterHealth(instance="r1", sequence=1, deltas=[call]))
    return key


@pytest.mark.parametrize(("word", "state", "weight"), [("promote", "Promoted", 100), ("abort", "Aborted", 0)])
async def test_who_promoted_or_aborted_a_canary_is_in_the_audit_log_once(
    world: Any, canary: ObjectKey, word: str, state: str, weight: int
) -> None:
    signed = {f"beamline.io/{word}": "req-7", "beamline.io/changed-by": "ada request=req-7"}
    world.store.annotate(canary, signed)
    await world.settle()
    world.restart()
    await world.settle()
    rows = [row for row in await world.registry.audit(AuditQuery()) if row.request_id == "req-7"]
    assert [(row.object_id, row.action, row.changed_by) for row in rows] == [
        ("guard_v2", "updated", "ada (beamline-admin)")
    ]
    assert rows[0].changes == {
        f"annotations.beamline.io/{word}": {"from": None, "to": "req-7"},
        "canary.state": {"from": "Progressing", "to": state},
        "canary.weight": {"from": 10, "to": weight},
    }
    await world.registry.verify_audit()


async def test_a_promotion_waits_for_a_registry_that_can_note_it(world: Any, canary: ObjectKey) -> None:
    world.registry.outage = RegistryUnavailableError("away")
    world.store.annotate(canary, {"beamline.io/promote": "now"})
    await world.settle()
    world.registry.outage = None
    await world.advance(60)
    rows = [row for row in await world.registry.audit(AuditQuery()) if "canary.state" in row.changes]
    assert [(row.changed_by, row.changes["canary.state"]["to"]) for row in rows] == [("kubectl", "Promoted")]


def test_who_set_one_of_our_annotations_is_its_newest_field_manager() -> None:
    def managed(manager: str, time: str, *names: str) -> dict[str, Any]:
        fields = {f"f:{name}": {} for name in names}
        return {"manager": manager, "time": time, "fieldsV1": {"f:metadata": {"f:annotations": fields}}}

    meta = parse_metadata(
        {
            "name": "x",
            "managedFields": [
                managed("late", "2026-02-01T00:00:00Z", "beamline.io/promote"),
                managed("early", "2026-01-01T00:00:00Z", "beamline.io/promote", "other.io/x"),
                {"manager": "spec", "time": "2026-03-01T00:00:00Z", "fieldsV1": {"f:spec": {}}},
            ],
        }
    )
    assert meta.annotated_by == {"beamline.io/promote": "late"}
    assert meta.changed_by == "spec"
