"""Whatever goes wrong is a problem document with a code of the closed list, silent about the inside."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_admin.app import application
from beamline_admin.limits import MAX_BODY
from beamline_admin.problems import STATUS
from beamline_registry.memory import MemoryRegistry

BROKEN: list[Any] = [
    pytest.param("GET", "/api/v1/nothing", {}, 404, "not_found", id="a path that is not there"),
    pytest.param("GET", "/api/v1/extensions/nobody", {}, 404, "not_found", id="an object that is not there"),
    pytest.param("PATCH", "/api/v1/extensions", {}, 405, "INVALID_ARGUMENT", id="a method that is not there"),
    pytest.param("BREW", "/api/v1/extensions", {}, 405, "INVALID_ARGUMENT", id="a method that nobody knows"),
    pytest.param(
        "POST", "/api/v1/extensions", {"content": b"x" * (MAX_BODY + 1)}, 413, "INVALID_ARGUMENT",
        id="a body that is too large",
    ),
    pytest.param(
        "POST", "/api/v1/extensions", {"content": b"x=1"}, 415, "INVALID_ARGUMENT", id="a body without type"
    ),
    pytest.param(
        "POST", "/api/v1/extensions", {"data": {"name": "x"}}, 415, "INVALID_ARGUMENT", id="a form"
    ),
    pytest.param(
        "POST", "/api/v1/extensions",
        {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "INVALID_ARGUMENT",
        id="broken JSON",
    ),
    pytest.param(
        "POST", "/api/v1/extensions", {"json": {"name": "x"}}, 400, "INVALID_ARGUMENT", id="a missing field"
    ),
    pytest.param(
        "POST", "/api/v1/extensions", {"json": {"name": "x", "spec": {}, "more": 1}}, 400,
        "INVALID_ARGUMENT", id="a field too many",
    ),
    pytest.param("GET", "/api/v1/extensions?limit=0", {}, 400, "INVALID_ARGUMENT", id="a page of none"),
    pytest.param("GET", "/api/v1/extensions?limit=201", {}, 400, "INVALID_ARGUMENT", id="a page too large"),
    pytest.param("GET", "/api/v1/requests?limit=101", {}, 400, "INVALID_ARGUMENT", id="too many asked for"),
    pytest.param("GET", "/api/v1/extensions?typ=pre", {}, 400, "INVALID_ARGUMENT", id="a misspelt filter"),
    pytest.param("GET", "/api/v1/extensions?type=guard", {}, 400, "invalid_type", id="no such type"),
    pytest.param("GET", "/api/v1/events?topics=weather", {}, 400, "INVALID_ARGUMENT", id="no such topic"),
    pytest.param("GET", "/api/v1/requests/a%20b", {}, 400, "INVALID_ARGUMENT", id="no request id"),
    pytest.param("GET", "/api/v1/requests", {}, 503, "UNAVAILABLE", id="no NATS"),
    pytest.param("POST", "/api/v1/trail/watch", {"json": {"content": True}}, 403, "PERMISSION_DENIED",
                 id="content that is switched off"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "how", "status", "code"), BROKEN)
async def test_what_is_wrong_is_a_problem_document(  # noqa: PLR0917 -- the columns of the table
    seeded: Any, method: str, path: str, how: dict[str, Any], status: int, code: str
) -> None:
    async with seeded.client() as client:
        answer = await client.request(method, path, **how)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["type"] == f"urn:beamline:problem:{code}"
    assert problem["code"] in {one.value for one in STATUS}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    if status == 405:
        assert answer.headers["allow"] == "GET, POST"


async def test_a_fault_says_nothing_of_the_inside(seeded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise ValueError("a secret place")

    monkeypatch.setattr(seeded.registry, "read", broken)
    async with seeded.client() as client:
        answer = await client.get("/api/v1/extensions")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert "secret" not in answer.text


async def test_who_asks_too_often_is_told_when_to_come_back(seeded: Any) -> None:
    registry = MemoryRegistry()
    now = 0.0
    seeded = type(seeded)(
        registry, 1, application(registry, registry, seeded.token, rate=1.0, clock=lambda: now)
    )
    async with seeded.client() as client:
        answers = [await client.get("/api/v1/extensions") for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert answers[-1].json()["code"] == "RESOURCE_EXHAUSTED"
        assert answers[-1].headers["retry-after"] == "1"
        now = 1.0
        assert (await client.get("/api/v1/extensions")).status_code == 200
