"""Nobody gets in without a token: every route of the OpenAPI document, with every kind of caller."""

from __future__ import annotations

import re
from typing import Any

import pytest

from beamline_admin import openapi

ROUTES = [
    pytest.param((method.upper(), path, "security" in operation), id=f"{method} {path}")
    for path, methods in openapi.document()["paths"].items()
    for method, operation in methods.items()
]
CALLERS = [
    pytest.param({"token": None}, False, id="no token"),
    pytest.param({"token": "not-the-token-of-these-tests"}, False, id="a wrong token"),
    pytest.param({}, True, id="the right token"),
    pytest.param({"host": "10.1.2.3"}, False, id="the right token from another machine"),
    pytest.param({"extra": {"x-forwarded-for": "127.0.0.1"}}, False, id="the right token through a proxy"),
    pytest.param({"extra": {"host": "evil.example"}}, False, id="the right token for a rebound name"),
    pytest.param(
        {"token": None, "extra": {"authorization": "Basic bG9jYWw6eA=="}}, False, id="another scheme"
    ),
    pytest.param(
        {"token": None, "query": {"token": "the-token-of-these-tests"}}, False, id="the token in the URL"
    ),
]


@pytest.mark.parametrize(("caller", "accepted"), CALLERS)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_route_answers_only_whom_it_should(
    seeded: Any, route: tuple[str, str, bool], caller: dict[str, Any], accepted: bool
) -> None:
    method, path, protected = route
    path = re.sub(r"{[a-z_]+}", "here", path)
    query = {**(caller.get("query") or {}), **({"seconds": "0.05"} if path.endswith("/events") else {})}
    how = {key: value for key, value in caller.items() if key in {"host", "token"}}
    async with seeded.client(**how) as client:
        answer = await client.request(method, path, headers=caller.get("extra"), params=query)
    if accepted and (
        method != "GET" or path.endswith(("/conditions", "/routers", "/requests", "/requests/here"))
    ):
        missing = {400, 503} if "/canaries/" not in path else {404}
        assert answer.status_code in missing, "let in, but the body is missing, or objects, a canary, or NATS"
    elif accepted or not protected:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        problem = answer.json()
        assert (problem["code"], problem["request_id"]) == ("UNAUTHENTICATED", answer.headers["x-request-id"])
        assert "here" not in answer.text.replace("accepted here", "")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/nothing",
        "/api/v1/extensions/%2e%2e/%2e%2e",
        "/api//v1/extensions",
        "/api/v1/extensions/",
        "/api/v1/openapi.json",
    ],
)
async def test_a_stranger_learns_nothing_about_which_paths_exist(seeded: Any, path: str) -> None:
    async with seeded.client(token=None) as client:
        assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/static/pages.py", "/docs", "/redoc", "/openapi.json", "/healthz/", "/LOGIN"]
)
async def test_a_page_sends_a_stranger_to_the_login(seeded: Any, path: str) -> None:
    async with seeded.client() as client:  # a bearer token opens no page
        answer = await client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/api/v1/extensions", "/api/v1/extensions/here", "/api/v1/policies/here", "/api/v1/audit"]
)
async def test_without_a_place_for_objects_nothing_can_be_written(
    seeded: Any, method: str, path: str
) -> None:
    async with seeded.client() as client:
        answer = await client.request(method, path, json={})
    assert answer.status_code in {400, 405, 503}
    assert answer.json()["code"] in {"INVALID_ARGUMENT", "UNAVAILABLE"}


@pytest.mark.parametrize("path", ["/", "/login", "/healthz", "/metrics", "/api/v1/registry", "/nothing"])
async def test_every_answer_carries_the_protective_headers(seeded: Any, path: str) -> None:
    async with seeded.client() as client:
        headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert headers["x-request-id"]


async def test_labels_of_metrics_stay_bounded_whatever_is_asked_for(seeded: Any) -> None:
    async with seeded.client() as client:
        await client.get("/metrics")
        before = (await client.get("/metrics")).text.count("\n")
        for number in range(50):
            await client.request(f"METHOD{number}", f"/api/v1/nothing-{number}")
            await client.get(f"/api/v1/extensions/unknown-{number}")
        text = (await client.get("/metrics")).text
    assert text.count("\n") - before < 60, "two routes more, not a hundred"
    assert "nothing-" not in text
    assert "unknown-" not in text
    assert 'route="/api/v1/extensions/{identifier}",status="404"' in text
