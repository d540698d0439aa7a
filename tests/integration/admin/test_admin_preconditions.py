"""What must hold before an object is changed, on every route that changes one: generation and owner."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from beamline_admin.app import application
from beamline_admin.objects.memory import MemoryObjects
from beamline_registry.memory import MemoryRegistry
from beamline_registry.port import Upsert
from harness.served_admin import CANARY, STEPS, OneRouter

TOKEN = "the-token-of-these-tests"
SPEC: dict[str, Any] = {"type": "provider", **CANARY}
CHANGED = {"spec": {**SPEC, "timeoutMs": 7}, "generation": 1}
POLICY: dict[str, Any] = {"steps": STEPS}
ROUTES: list[Any] = [
    ("PUT", "/extensions/two", CHANGED),
    ("DELETE", "/extensions/two", None),
    ("POST", "/extensions/two/disable", None),
    ("POST", "/extensions/two/enable", None),
    ("POST", "/extensions/two/promote", None),
    ("POST", "/extensions/two/abort", None),
    ("POST", "/canaries/two/promote", None),
    ("POST", "/canaries/two/abort", None),
    ("PUT", "/policies/way", {"spec": {**POLICY, "priority": 7}, "generation": 1}),
    ("DELETE", "/policies/way", None),
]


class Site:
    """The application with a canary and a policy, which ``owner`` makes somebody else's."""

    def __init__(self, **owner: Any) -> None:
        metadata = {"labels": {}, "annotations": {}, **owner}
        self.objects = MemoryObjects(
            [
                {"kind": "Extension", "metadata": {"name": "mock-provider"}, "spec": {"type": "provider"}},
                {"kind": "Extension", "metadata": {"name": "pii-guard"}, "spec": {"type": "validator"}},
                {"kind": "Extension", "metadata": {"name": "two", **metadata}, "spec": SPEC},
                {"kind": "RoutingPolicy", "metadata": {"name": "way", **metadata}, "spec": POLICY},
            ]
        )
        self.registry = MemoryRegistry()
        self.app = application(
            self.registry, self.registry, TOKEN, objects=self.objects, routers=OneRouter(), rate=10_000
        )

    async def fill(self) -> None:
        """The rows that the operator would have written."""
        stored = [held.parsed() for held in (await self.objects.all()).values()]
        rows = [projected(one) for one in stored]
        epoch = await self.registry.acquire_epoch("tests")
        await self.registry.write([Upsert(row, "ada") for row in rows], epoch=epoch)

    async def call(
        self, method: str, path: str, body: Any = None, headers: Any = None, **query: Any
    ) -> httpx2.Response:
        sent = {"authorization": f"Bearer {TOKEN}", **(headers or {})}
        transport = httpx2.ASGITransport(app=self.app, client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, f"/api/v1{path}", json=body, headers=sent, params=query)

    async def state(self) -> str:
        """All objects, for comparing."""
        return json.dumps([held.document for held in (await self.objects.all()).values()], default=str)


def projected(stored: Any) -> Any:
    from beamline_contract.projection import extension_record, policy_record

    return extension_record(stored) if stored.kind == "Extension" else policy_record(stored)


@pytest.mark.parametrize(
    ("method", "path", "body"), ROUTES, ids=lambda one: one if isinstance(one, str) else ""
)
async def test_a_generation_in_if_match_that_is_not_the_objects_changes_nothing(
    method: str, path: str, body: Any
) -> None:
    site = Site()
    await site.fill()
    before = await site.state()
    stale = await site.call(method, path, body, {"if-match": '"9"'})
    assert (stale.status_code, stale.json()["code"], stale.json()["field"]) == (412, "conflict", "if-match")
    odd = await site.call(method, path, body, {"if-match": 'W/"1"'})
    assert (odd.status_code, odd.json()["field"]) == (400, "if-match")
    assert await site.state() == before
    assert (await site.call(method, path, body, {"if-match": '"1"'})).status_code == 200


@pytest.mark.parametrize("any_will_do", [{}, {"if-match": "*"}], ids=["without", "a star"])
async def test_if_match_is_optional(any_will_do: dict[str, str]) -> None:
    site = Site()
    await site.fill()
    assert (await site.call("POST", "/extensions/two/disable", None, any_will_do)).status_code == 200


@pytest.mark.parametrize("path", ["/extensions/two", "/policies/way", "/extensions/two/conditions"])
async def test_what_goes_into_if_match_is_the_etag_of_a_get(path: str) -> None:
    site = Site()
    await site.fill()
    assert (await site.call("GET", path)).headers["etag"] == '"1"'


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param({"annotations": {"argocd.argoproj.io/tracking-id": "x:y"}}, id="Argo CD"),
        pytest.param({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, id="Flux"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "body"), ROUTES, ids=lambda one: one if isinstance(one, str) else ""
)
async def test_what_a_gitops_tool_owns_is_left_alone_and_the_owner_named_unless_an_admin_forces(
    method: str, path: str, body: Any, owner: dict[str, Any]
) -> None:
    site = Site(**owner)
    await site.fill()
    before = await site.state()
    refused = await site.call(method, path, body)
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["field"]) == (409, "conflict", "force")
    assert ("Argo CD" if "annotations" in owner else "Flux") in problem["detail"]
    assert await site.state() == before
    assert (await site.call(method, path, body, force=True)).status_code == 200
