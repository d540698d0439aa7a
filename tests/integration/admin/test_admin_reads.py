"""What the API answers, over a real PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_contract.reports import HealthDelta
from beamline_registry.port import Remove


async def get(admin: Any, path: str, status: int = 200, **query: Any) -> Any:
    async with admin.client() as client:
        answer = await client.get(f"/api/v1{path}", params=query)
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        pytest.param({}, ["alpha", "beta", "gamma"], id="all, in order of id"),
        pytest.param({"type": "provider"}, ["beta", "gamma"], id="by type"),
        pytest.param({"q": "BET"}, ["beta"], id="by text, whatever the case"),
        pytest.param({"q": "ext.provider"}, ["beta", "gamma"], id="by subject"),
        pytest.param({"type": "pre", "q": "gamma"}, [], id="both filters hold"),
        pytest.param({"q": "%"}, [], id="no wildcards"),
        pytest.param({"limit": 2}, ["alpha", "beta"], id="a first page"),
        pytest.param({"after": "beta"}, ["gamma"], id="what follows"),
    ],
)
async def test_extensions_are_listed(
    admin: Any, extension: Any, query: dict[str, Any], ids: list[str]
) -> None:
    await admin.write(extension("gamma", "provider"), extension("alpha"), extension("beta", "provider"))
    page = await get(admin, "/extensions", **query)
    assert [item["id"] for item in page["items"]] == ids
    assert page["next"] == ("beta" if "limit" in query else None)
    assert page["revision"] == 1


async def test_pages_are_stable_while_rows_are_inserted_and_removed(admin: Any, extension: Any) -> None:
    await admin.write(*(extension(f"e{number:02}") for number in range(0, 20, 2)))
    seen: list[str] = []
    after = ""
    for step in range(100):
        page = await get(admin, "/extensions", limit=3, after=after)
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
        gone = Remove("Extension", after, f"uid-{after}", 1, "ada")
        await admin.registry.write([gone], epoch=admin.epoch)
        await admin.write(extension(f"a{step}"), extension(f"z{step}"))
    assert [one for one in seen if one.startswith("e")] == [f"e{number:02}" for number in range(0, 20, 2)]
    assert len(seen) == len(set(seen))
    assert not [one for one in seen if one.startswith("a")], (
        "what comes in before the place is not shown late"
    )


async def test_a_change_is_seen_by_the_next_request(admin: Any, extension: Any) -> None:
    await admin.write(extension("one"))
    assert (await get(admin, "/extensions/one"))["enabled"] is True
    await admin.write(extension("one", generation=2, enabled=False))
    found = await get(admin, "/extensions/one")
    assert (found["enabled"], found["generation"], found["revision"]) == (False, 2, 2)


async def test_an_extension_is_shown_whole_but_never_with_a_secret(admin: Any, extension: Any) -> None:
    config = {"model": "gpt-4", "max_tokens": 5, "api_key": "sk-canary", "nested": [{"password": "canary"}]}
    record = extension("one", "provider", config=config, spec={"config": config, "failureMode": "closed"})
    await admin.write(record)
    found = await get(admin, "/extensions/one")
    assert found["config"]["model"] == "gpt-4"
    assert found["config"]["max_tokens"] == 5
    assert found["failure_mode"] == "closed"
    assert "canary" not in str(found)


async def test_health_is_a_score_or_an_honest_no_data(admin: Any, extension: Any) -> None:
    await admin.write(extension("busy"), extension("idle"))
    deltas = [HealthDelta(extension_id="busy", success=3, failure=1, latency_ms_sum=80.0)]
    await admin.registry.fold_health(deltas, epoch=admin.epoch)
    busy = await get(admin, "/extensions/busy/health")
    assert (busy["status"], busy["score"], busy["avg_latency_ms"]) == ("measured", 75.0, 20.0)
    assert (busy["window_success"], busy["window_failure"]) == (3, 1)
    assert await get(admin, "/extensions/idle/health") == {"status": "no_data"}


async def test_policies_come_with_their_complexity_and_hints(admin: Any, extension: Any, policy: Any) -> None:
    await admin.write(
        extension("mock", "provider"),
        extension("off", "validator", enabled=False),
        policy("plain"),
        policy("wild", "nobody", ("off", "off", "off"), fallback=["mock"]),
    )
    page = await get(admin, "/policies")
    assert [(item["id"], item["complexity"]) for item in page["items"]] == [("plain", 1), ("wild", 13)]
    assert page["items"][0]["hints"] == []
    assert page["items"][1]["hints"] == [
        "off is disabled: its step is skipped or fails",
        "nobody is not in the registry",
        "complexity 13 is above 10: put validators into one group, or use fewer steps or fallbacks",
    ]
    found = await get(admin, "/policies/plain")
    assert found["policy"]["steps"][0]["provider_id"] == "mock"
    assert [item["id"] for item in (await get(admin, "/policies", q="WILD"))["items"]] == ["wild"]


async def test_the_audit_is_newest_first_in_pages_and_outlives_its_object(
    admin: Any, extension: Any, policy: Any
) -> None:
    await admin.write(extension("one"), policy("one"), by="ada")
    await admin.write(extension("one", generation=2, timeout_ms=9), by="bob")
    await admin.registry.write([Remove("Extension", "one", "uid-one", 2, "eve")], epoch=admin.epoch)
    await get(admin, "/extensions/one", 404)
    first = await get(admin, "/audit", kind="Extension", object_id="one", limit=2)
    assert [(row["action"], row["changed_by"]) for row in first["items"]] == [
        ("deleted", "eve"),
        ("updated", "bob"),
    ]
    assert first["items"][1]["changes"]["timeout_ms"] == {"from": 5000, "to": 9}
    await admin.write(extension("two"))
    rest = await get(admin, "/audit", kind="Extension", object_id="one", limit=2, before=first["next"])
    assert [(row["action"], row["changed_by"]) for row in rest["items"]] == [("created", "ada")]
    assert rest["next"] is None
    assert len((await get(admin, "/audit"))["items"]) == 5


async def test_the_registry_is_counted(admin: Any, extension: Any, policy: Any) -> None:
    await admin.write(extension("a"), extension("b", "post", enabled=False), policy("p"))
    assert await get(admin, "/registry") == {
        "revision": 1,
        "extensions": 2,
        "enabled_extensions": 1,
        "extensions_by_type": {"pre": 1, "validator": 0, "provider": 0, "post": 1},
        "policies": 1,
    }


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        pytest.param("/extensions", {"type": "prov"}, (400, "invalid_type", "type"), id="an unknown type"),
        pytest.param("/extensions", {"limit": 0}, (400, "INVALID_ARGUMENT", "limit"), id="an empty page"),
        pytest.param("/extensions", {"limit": 201}, (400, "INVALID_ARGUMENT", "limit"), id="a huge page"),
        pytest.param("/extensions", {"limit": "x"}, (400, "INVALID_ARGUMENT", "limit"), id="a page of words"),
        pytest.param(
            "/extensions", {"tpye": "pre"}, (400, "INVALID_ARGUMENT", "tpye"), id="a misspelt filter"
        ),
        pytest.param("/extensions", {"q": "x" * 201}, (400, "INVALID_ARGUMENT", "q"), id="a long text"),
        pytest.param(
            "/audit", {"before": 2**63}, (400, "INVALID_ARGUMENT", "before"), id="a sequence beyond 64 bits"
        ),
        pytest.param("/audit", {"kind": "Pod"}, (400, "INVALID_ARGUMENT", "kind"), id="an unknown kind"),
        pytest.param(
            "/audit",
            {"object_id": "\0"},
            (400, "INVALID_ARGUMENT", "object_id"),
            id="text no database can hold",
        ),
        pytest.param("/extensions/none", {}, (404, "not_found", "id"), id="an unknown extension"),
        pytest.param(
            "/extensions/none/health", {}, (404, "not_found", "id"), id="health of an unknown extension"
        ),
        pytest.param("/policies/none", {}, (404, "not_found", "id"), id="an unknown policy"),
        pytest.param("/nothing", {}, (404, "not_found", None), id="an unknown path"),
    ],
)
async def test_a_fault_is_a_problem_document_that_names_the_field(
    admin: Any, path: str, query: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    status, code, field = expected
    problem = await get(admin, path, status, **query)
    assert (problem["code"], problem.get("field"), problem["status"]) == (code, field, status)
    assert problem["type"] == f"urn:beamline:problem:{code}"
    assert problem["title"]
    assert problem["detail"]


async def test_without_the_database_every_answer_says_so_and_the_next_one_recovers(
    admin: Any, own_postgres: Any
) -> None:
    from beamline_admin.app import application
    from beamline_registry.migrate import migrate
    from beamline_registry.postgres import PostgresRegistry

    await migrate(own_postgres.url())
    registry = await PostgresRegistry.connect(own_postgres.url())
    app = type(admin)(registry, 0, application(registry, registry, admin.token))
    try:
        assert (await get(app, "/registry"))["revision"] == 0
        own_postgres.stop()
        problem = await get(app, "/registry", 503)
        assert (problem["code"], "hint" in problem) == ("UNAVAILABLE", True)
        assert "postgres" not in str(problem).lower()
        async with app.client() as client:
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
    finally:
        await registry.close()


async def test_a_fault_of_our_own_is_answered_without_its_text(admin: Any) -> None:
    from beamline_admin.app import application

    class Broken:
        async def read(self, since: int) -> Any:
            raise ZeroDivisionError("the secret of the fault")

    broken = type(admin)(admin.registry, 0, application(Broken(), admin.registry, admin.token))
    problem = await get(broken, "/registry", 500)
    assert problem["code"] == "INTERNAL"
    assert "secret" not in str(problem)
