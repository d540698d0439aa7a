"""Traffic divided or held back, with real responders: versions, canary, validators beside the call."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from .conftest import Site, eventually, extension, policy, provider_reply, running

GUARD: dict[str, Any] = {"action": "extension_validator", "extension_id": "guard", "overlap": True}


async def test_versions_divide_the_tenants_and_a_new_weight_moves_all_of_them(site: Site) -> None:
    base = extension("echo", "provider", generation=2, weight=50, spec={"stickyKey": "tenant"})
    newer = extension("echo_next", "provider", version="v2", weight=50, spec={"versionOf": "echo"})
    await site.respond(site.nc, "echo_next", newer.subject, lambda asked: provider_reply(asked, "new"))
    route = policy("default", [{"action": "select_provider", "provider_id": "echo"}], generation=2)
    await site.put(base, newer, route, hint=False)
    async with running(site.settings()) as served:

        async def met(tenant: str) -> tuple[str, str]:
            (step,) = (await served.route({"prompt": "Hi", "tenant_id": tenant})).json()["steps"]
            return step["extension_id"], step["version"]

        tenants = [f"t{number}" for number in range(40)]
        first = [await met(tenant) for tenant in tenants]
        assert set(first) == {("echo", "echo"), ("echo_next", "v2")}
        assert [await met(tenant) for tenant in tenants] == first
        await site.put(extension("echo", "provider", generation=3, weight=0, spec={"stickyKey": "tenant"}))

        async def moved() -> bool:
            return Counter([await met(tenant) for tenant in tenants]) == {("echo_next", "v2"): 40}

        await eventually(moved, "every tenant meets the newer version")


async def test_a_canary_that_nobody_runs_costs_no_answer(site: Site) -> None:
    canary = {"provider_id": "nobody", "percent": 100}
    step = {"action": "select_provider", "provider_id": "echo", "canary": canary}
    await site.put(extension("nobody", "provider"), policy("default", [step], generation=2), hint=False)
    async with running(site.settings()) as served:
        reply = await served.route({"prompt": "Hi"})
    assert reply.status_code == 200
    assert [(one["extension_id"], one["why"]) for one in reply.json()["steps"]] == [
        ("nobody", "canary"),
        ("echo", "ordered"),
    ]


async def test_a_rejection_beside_the_call_ends_the_request_while_the_provider_still_works(
    site: Site,
) -> None:
    release = asyncio.Event()

    async def slow(asked: dict[str, Any]) -> dict[str, Any]:
        await release.wait()
        return provider_reply(asked, "the secret")

    late = extension("late", "provider", timeout_ms=600_000)
    await site.respond(site.nc, "late", late.subject, slow)
    steps = [GUARD, {"action": "select_provider", "provider_id": "late"}]
    await site.put(late, policy("default", steps, generation=2, deadline_ms=600_000), hint=False)
    async with running(site.settings()) as served:
        reply = await served.route({"prompt": "4111 1111 1111 1111"})
        release.set()
    assert reply.status_code == 422
    assert reply.json()["error"]["code"] == "VALIDATION_REJECTED"
    assert "secret" not in reply.text
    assert site.calls["late"] == 1
