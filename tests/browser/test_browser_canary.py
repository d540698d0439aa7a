"""A canary from its page: it takes its share, and a person ends it either way, as routers' answers show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.async_api import expect

from harness.inspector_world import InspectorWorld
from harness.processes import eventually

SOON_MS = 30_000
COMMAND = ["beamline", "extension", "run", "mock_provider"]
KEYS = [f"canary-{number}" for number in range(12)]
"""Request ids: they decide who meets the canary, so every run asks the same."""


@contextmanager
def canary(world: InspectorWorld, name: str) -> Iterator[str]:
    """A version of mock-spare that says its own name and takes half of its requests; gone afterwards."""
    spec: dict[str, Any] = {
        "type": "provider",
        "timeoutMs": 2000,
        "retry": 0,
        "version": "2.0",
        "versionOf": "mock-spare",
        "config": {"mode": "fixed", "answer": name},
        "canary": {
            "steps": [{"weight": 50, "pauseSeconds": 3600}, {"weight": 90, "pauseSeconds": 3600}],
            "gates": {"minSamples": 1000, "maxErrorRate": 0.5},
        },
        "workload": {"image": "ghcr.io/beamline/beamline:0.1.0", "command": COMMAND},
    }
    made = world.api.post("/extensions", json={"name": name, "spec": spec}, params={"wait": "programmed"})
    assert made.status_code == 201, made.text
    try:
        yield name.replace("-", "_")
    finally:
        gone = world.api.delete(f"/extensions/{name.replace('-', '_')}", params={"wait": "programmed"})
        assert gone.status_code == 200, gone.text
        eventually(lambda: answers(world) == {"mock_spare"}, "the base has its requests again")


def answers(world: InspectorWorld) -> set[str]:
    """Which extensions answer the requests of acme, whose policy asks mock-spare."""
    replies = [world.route("hello", {"x-request-id": key}, tenant_id="acme") for key in KEYS]
    assert {reply.status_code for reply in replies} == {200}, [reply.text for reply in replies]
    return {str(reply.json()["provider_id"]) for reply in replies}


@pytest.mark.parametrize(
    ("button", "share", "end"),
    [
        ("Promote", "100 %", ("Promoted", "spare_v2")),
        ("Abort canary", "0 %", ("Aborted", "mock_spare")),
    ],
    ids=["promoted", "aborted"],
)
async def test_a_canary_is_ended_from_its_page_and_the_router_answers_so(
    visit: Any, world: InspectorWorld, button: str, share: str, end: tuple[str, str]
) -> None:
    state, served = end
    with canary(world, "spare-v2") as identifier:
        visitor, other = await visit("operator"), await visit("viewer")
        visitor.allowed = other.allowed = ("status of 404",)  # its pages, once it is gone
        page, onlooker = visitor.page, other.page
        for each in (page, onlooker):
            await each.goto(f"/extensions/{identifier}")
            await expect(each.locator("#live")).to_have_text("Live")
            await each.evaluate("window.sameDocument = true")
        rollout = page.get_by_role("region", name="Rollout")
        await expect(rollout).to_contain_text("Progressing", timeout=SOON_MS)
        await expect(rollout).to_contain_text("Takes 50 % of the requests to mock-spare")
        eventually(lambda: answers(world) == {"mock_spare", "spare_v2"}, "both versions answer")
        assert await onlooker.get_by_role("link", name=button, exact=True).count() == 0
        await page.get_by_role("link", name=button, exact=True).click()
        dialog = page.get_by_role("dialog")
        change = rf"share of its base's requests 50 % \(Progressing\) {share}"
        row = dialog.get_by_role("row", name=re.compile(change))
        await expect(row).to_be_visible()
        await visitor.accessible()
        await dialog.get_by_role("button", name=button.split(maxsplit=1)[0], exact=True).click()
        await expect(dialog.get_by_text(re.compile(rf"is {state.lower()}"))).to_be_visible()
        eventually(lambda: answers(world) == {served}, "the other one gets nothing any more")
        for each in (page, onlooker):
            shown = each.get_by_role("region", name="Rollout")
            await expect(shown).to_contain_text(state, timeout=SOON_MS)
            happened = each.get_by_role("region", name="Events")
            await expect(happened).to_contain_text(f"Canary{state}", timeout=SOON_MS)
            assert await each.evaluate("window.sameDocument") is True, "drawn without loading it again"
