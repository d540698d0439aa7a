"""The audit log over the admin API: bounded by tenants in the query itself, exported as lines of JSON."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from beamline_admin.app import application
from beamline_admin.oidc import OidcSettings, OidcVerifier
from beamline_registry.audit_log import of_lines, verify_export
from beamline_registry.chain import Head
from beamline_registry.port import Remove
from harness.oidc import AUDIENCE, ISSUER, Provider

TOKEN = "the-token-of-these-tests"


class Site:
    """The application in front of PostgreSQL, asked by people with tokens."""

    def __init__(self, admin: Any) -> None:
        self.admin = admin
        self.provider = Provider()
        verifier = OidcVerifier(
            OidcSettings(ISSUER, AUDIENCE), clock=time.monotonic, fetch=self.provider.fetch
        )
        self.app = application(admin.registry, admin.registry, TOKEN, verifiers=[verifier], rate=10_000)

    async def get(self, path: str, role: str, *tenants: str, **query: Any) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=self.app, client=("10.0.0.9", 1))
        headers = {"authorization": f"Bearer {self.provider.token(role, list(tenants) or '*')}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client:
            return await client.get(f"/api/v1{path}", params=query)


@pytest.fixture
def site(admin: Any) -> Site:
    return Site(admin)


async def test_who_is_bound_to_a_tenant_finds_its_oldest_change_behind_thousands_of_others(
    site: Site, extension: Any, policy: Any
) -> None:
    theirs = policy("theirs", "mock", match={"tenants": ["acme"]})
    await site.admin.write(theirs, extension("mock", "provider"), extension("foreign"))
    for first in range(2, 2_202, 550):
        await site.admin.write(*(extension("foreign", generation=first + step) for step in range(550)))
    await site.admin.write(extension("mock", "provider", generation=2, timeout_ms=7))
    seen, before = [], {}
    for _ in range(5):
        page = (await site.get("/audit", "viewer", "acme", limit=1, **before)).json()
        seen += [(row["object_id"], row["action"]) for row in page["items"]]
        await site.admin.write(extension("foreign", generation=9_000 + len(seen)))
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert seen == [("mock", "updated"), ("mock", "created"), ("theirs", "created")]
    hidden = await site.get("/audit", "viewer", "acme", kind="Extension", object_id="foreign")
    assert hidden.json() == {"items": [], "next": None}


async def test_the_history_of_an_earlier_object_of_the_same_name_is_not_shown_to_a_tenant(
    site: Site, extension: Any, policy: Any
) -> None:
    await site.admin.write(extension("mock", "provider"))
    gone = Remove("Extension", "mock", "uid-mock", 1, "ada")
    await site.admin.registry.write([gone], epoch=site.admin.epoch)
    theirs = policy("theirs", "mock", match={"tenants": ["acme"]})
    await site.admin.write(replace(extension("mock", "provider"), uid="another"), theirs)
    rows = (await site.get("/audit", "viewer", "acme")).json()["items"]
    assert {row["uid"] for row in rows} == {"another", "uid-policy-theirs"}


async def test_the_export_is_every_row_as_the_command_line_writes_it_and_can_be_verified(
    site: Site, extension: Any
) -> None:
    await site.admin.write(*(extension(f"e{number}") for number in range(600)))
    answer = await site.get("/audit/export", "operator")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    rows = list(of_lines(answer.content.splitlines()))
    assert [row.sequence for row in rows] == list(range(1, 601))
    assert verify_export(rows, Head()).rows == 600
    some = await site.get("/audit/export", "operator", object_id="e7")
    assert [row.object_id for row in of_lines(some.content.splitlines())] == ["e7"]


@pytest.mark.parametrize(
    ("role", "tenants"),
    [
        pytest.param("viewer", (), id="a viewer"),
        pytest.param("admin", ("acme",), id="an admin who is bound to a tenant"),
    ],
)
async def test_the_export_is_refused_to(site: Site, role: str, tenants: tuple[str, ...]) -> None:
    answer = await site.get("/audit/export", role, *tenants)
    assert (answer.status_code, answer.json()["code"]) == (403, "PERMISSION_DENIED")


async def test_an_empty_log_is_exported_as_nothing(site: Site) -> None:
    answer = await site.get("/audit/export", "operator")
    assert (answer.status_code, answer.content) == (200, b"")
