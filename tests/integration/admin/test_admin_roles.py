"""Every route of the OpenAPI document with every role, and with every token that proves nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
import pytest

from beamline_admin import openapi
from beamline_admin.app import application
from beamline_admin.objects.memory import MemoryObjects
from beamline_admin.oidc import OidcSettings, OidcVerifier
from beamline_contract.acts import ActNoted, RouterAct
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.memory import MemoryRegistry
from beamline_registry.port import Upsert
from harness.oidc import AUDIENCE, ISSUER, Provider

ROUTES = [
    (method.upper(), path)
    for path, methods in openapi.document()["paths"].items()
    for method in methods
    if path.startswith("/api/")
]
STREAMS = {
    (method.upper(), path)
    for path, methods in openapi.document()["paths"].items()
    for method, operation in methods.items()
    if "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
}
"""Routes that answer until somebody ends them."""
OPERATOR = (
    "/enable",
    "/disable",
    "/isolate",
    "/reset",
    "/promote",
    "/abort",
    "/watch",
    "/playground",
    "/playground/stream",
    "/export",
)
READING_POSTS = ("/validate", "/diff", "/explain")
SPEC = {"type": "pre", "subject": "beamline.ext.pre.here.v1"}
POLICY = {"steps": [{"action": "select_provider", "providers": [{"extensionRef": {"name": "mock"}}]}]}
BODIES: dict[str, Any] = {
    "explain": {"request": {"prompt": "x"}},
    "watch": {},
    "playground": {"request": {"prompt": "x"}},
    "stream": {"request": {"prompt": "x"}},
    "validate": {"name": "other", "spec": SPEC},
    "diff": {"spec": SPEC},
    "POST": {"name": "other", "spec": {"type": "pre"}},
    "PUT": {"spec": SPEC, "generation": 1},
}
ROLES = ("viewer", "operator", "admin")


TRAIL = {
    "request_id": "here", "trace_id": "t", "at": "2026-01-01T00:00:00.000Z", "instance": "router-1",
    "door": "http", "policy": "here", "tenant": "acme", "status": "ok", "error": None, "latency_ms": 1.0,
    "provider": "here", "reason": "weighted", "steps": [],
}  # fmt: skip


class Routers:
    """One router, which has served one request, of the tenant acme."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.noted: list[RouterAct] = []

    async def ask(self, verb: str, request: Any, enough: Any = None) -> list[dict[str, Any]]:
        self.asked.append((verb, request))
        results = {"recent": {"requests": [TRAIL]}, "trace": TRAIL}
        return [{"instance": "router-1", "result": results.get(verb, {"verb": verb})}]

    async def note(self, act: RouterAct) -> ActNoted:
        self.noted.append(act)
        return ActNoted()

    async def invoke(self, request: Any, headers: Any, seconds: float) -> dict[str, Any]:
        return {"output": "x", "policy": "here"}

    async def stream(
        self, request: Any, headers: Any, seconds: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        yield {"delta": "Mock "}
        yield {"delta": "response"}
        yield {"policy": "here"}

    async def follow(self, subject: str, heard: Any) -> None:
        raise AssertionError("nothing runs in the background of these tests")


class World:
    def __init__(self) -> None:
        self.provider = Provider()
        self.registry = MemoryRegistry()
        self.routers = Routers()
        here = {"kind": "Extension", "metadata": {"name": "here"}, "spec": SPEC}
        policy = {"kind": "RoutingPolicy", "metadata": {"name": "here"}, "spec": POLICY}
        self.objects = MemoryObjects([here, policy], programmed=True)
        verifier = OidcVerifier(
            OidcSettings(ISSUER, AUDIENCE), clock=time.monotonic, fetch=self.provider.fetch
        )
        self.app = application(
            self.registry, self.registry, "the-token-of-these-tests", objects=self.objects,
            routers=self.routers, verifiers=[verifier],
        )  # fmt: skip

    async def fill(self) -> None:
        epoch = await self.registry.acquire_epoch("tests")
        spec = {"versionOf": "base", "canary": {"steps": [{"weight": 5}]}}
        subject = "beamline.ext.pre.here.v1"
        extension = ExtensionRecord("here", "pre", subject, "default", "here", "u1", 1, spec=spec)
        document = {
            "match": {"tenants": ["acme"]},
            "steps": [{"action": "extension_pre", "extension_id": "here"}],
        }
        policy = PolicyRecord("here", "default", "here", "u2", 1, document)
        await self.registry.write([Upsert(extension, "ada"), Upsert(policy, "ada")], epoch=epoch)

    async def call(self, method: str, path: str, token: str | None, body: Any = None) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.app, client=("10.0.0.7", 40_000))
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://admin.example", headers=headers
        ) as client:
            params = {"seconds": "0.05"} if (method, path) in STREAMS else None
            filled = re.sub(r"{[a-z_]+}", "here", path)
            return await client.request(method, filled, json=body, params=params)


@pytest.fixture
async def world() -> World:
    made = World()
    await made.fill()
    return made


def needed(method: str, path: str) -> str:
    if (method == "GET" and not path.endswith(OPERATOR)) or path.endswith(READING_POSTS):
        return "viewer"
    return "operator" if path.endswith(OPERATOR) else "admin"


def body_of(method: str, path: str) -> Any:
    last = path.rpartition("/")[2]
    if last in BODIES:
        found = BODIES[last]
    else:
        found = BODIES.get(method) if not path.endswith(OPERATOR) else None
    if found is not None and "policies" in path and last != "explain":
        return {**found, "spec": POLICY}
    return found


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
@pytest.mark.parametrize("role", ROLES)
async def test_a_role_may_what_it_should_and_nothing_else(
    world: World, route: tuple[str, str], role: str
) -> None:
    method, path = route
    answer = await world.call(method, path, world.provider.token(role), body_of(method, path))
    if ROLES.index(role) >= ROLES.index(needed(method, path)):
        assert answer.status_code in {200, 201}, answer.text
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "PERMISSION_DENIED")


FORGED: list[Any] = [
    pytest.param(lambda _: None, id="no token"),
    pytest.param(lambda provider: provider.token("admin", exp=int(time.time()) - 60), id="expired"),
    pytest.param(lambda provider: provider.token("admin", nbf=int(time.time()) + 600), id="not yet valid"),
    pytest.param(lambda provider: provider.token("admin", aud="other"), id="wrong audience"),
    pytest.param(lambda provider: provider.token("admin", iss="https://evil.example"), id="wrong issuer"),
    pytest.param(lambda provider: provider.unsigned(), id="alg none"),
    pytest.param(lambda provider: provider.confused(), id="the public key as a shared secret"),
    pytest.param(lambda provider: provider.token(None), id="no role"),
    pytest.param(lambda _: "the-token-of-these-tests", id="the laptop's token from elsewhere"),
]


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
@pytest.mark.parametrize("forge", FORGED)
async def test_a_token_that_proves_nothing_gets_nothing(
    world: World, route: tuple[str, str], forge: Callable[[Provider], str | None]
) -> None:
    method, path = route
    answer = await world.call(method, path, forge(world.provider), body_of(method, path))
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_an_admin_of_another_tenant_sees_and_changes_nothing_of_this_one(
    world: World, route: tuple[str, str]
) -> None:
    method, path = route
    world.objects._held.clear()
    theirs = {**POLICY, "match": {"tenants": ["acme"]}, "steps": [
        {"action": "extension_pre", "extensionRef": {"name": "here"}}, *POLICY["steps"]]}  # fmt: skip
    made = MemoryObjects([
        {"kind": "Extension", "metadata": {"name": "here"}, "spec": SPEC},
        {"kind": "RoutingPolicy", "metadata": {"name": "here"}, "spec": theirs},
    ])  # fmt: skip
    world.objects._held.update(made._held)
    answer = await world.call(method, path, world.provider.token("admin", "shop"), body_of(method, path))
    if path.endswith("/validate"):
        assert answer.status_code == 200
    elif path.endswith("/watch"):
        assert [asked["tenant"] for verb, asked in world.routers.asked if verb == "watch"] == ["shop"]
    elif (method, path) in STREAMS and method == "GET":
        assert set(re.findall("event: (.+)", answer.text)) == {"canaries"}
        assert '"canaries":[]' in answer.text
    elif path.endswith("/canaries"):
        assert answer.json() == {"canaries": []}
    elif method == "GET" and path.endswith(("/extensions", "/policies", "/requests", "/audit")):
        assert answer.json()["items"] == []
    else:
        assert answer.status_code in {403, 404}, answer.text


async def test_an_admin_of_the_tenant_may_change_what_is_the_tenants_alone(world: World) -> None:
    token = world.provider.token("admin", "acme")
    own = {**POLICY, "match": {"tenants": ["acme"]}}
    made = await world.call("POST", "/api/v1/policies", token, {"name": "own", "spec": own})
    assert made.status_code == 201, made.text
    stolen = {**POLICY, "match": {"tenants": ["acme", "shop"]}}
    grab = await world.call("PUT", "/api/v1/policies/own", token, {"spec": stolen, "generation": 1})
    assert grab.status_code == 403
    everybody = await world.call("POST", "/api/v1/policies", token, {"name": "all", "spec": POLICY})
    assert everybody.status_code == 403


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/explain", {"request": {"tenant_id": "shop", "policy": "here"}}, id="explain"),
        pytest.param(
            "/playground", {"request": {"tenant_id": "shop", "policy": "here"}}, id="in the request"
        ),
        pytest.param("/playground", {"request": {"tenant_id": "shop"}, "policy": "here"}, id="beside it"),
        pytest.param(
            "/playground",
            {"request": {"tenant_id": "shop"}, "policy": "all", "compare": "here"},
            id="compared",
        ),
    ],
)
async def test_who_is_bound_to_a_tenant_can_not_name_the_policy_of_another(
    world: World, path: str, body: dict[str, Any]
) -> None:
    await world.fill()
    everybodys = PolicyRecord("all", "default", "all", "uid-all", 1, {"match": {}, "steps": []})
    await world.registry.write([Upsert(everybodys, "ada")], epoch=await world.registry.acquire_epoch("tests"))
    answer = await world.call("POST", f"/api/v1{path}", world.provider.token("admin", "shop"), body)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert [verb for verb, _ in world.routers.asked if verb == "explain"] == []
    own = json.loads(json.dumps(body).replace("here", "all"))
    assert (await world.call("POST", f"/api/v1{path}", world.provider.token("admin", "shop"), own)).is_success
