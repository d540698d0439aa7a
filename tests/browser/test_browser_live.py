"""What changes in the world changes on the page, and the page is not loaded again for it."""

from __future__ import annotations

from typing import Any

from playwright.async_api import expect

from harness.inspector_world import InspectorWorld
from harness.processes import eventually

SOON_MS = 20_000
"""Routers are asked every five seconds; the rest is for a busy machine."""


async def test_objects_breakers_and_routers_change_on_open_pages(visit: Any, world: InspectorWorld) -> None:
    visitor = await visit("viewer")
    context = visitor.context
    listed, one, routers = visitor.page, await context.new_page(), await context.new_page()
    await listed.goto("/extensions")
    await one.goto("/extensions/owned_elsewhere")
    await routers.goto("/routers")
    pages = (listed, one, routers)
    for page in pages:
        await expect(page.locator("#live")).to_have_text("Live")
        await page.evaluate("window.sameDocument = true")
    await expect(routers.locator("section.router")).to_have_count(2)

    spec = {"type": "post", "config": {"note": "new"}}
    made = world.api.post(
        "/extensions", json={"name": "late-comer", "spec": spec}, params={"wait": "programmed"}
    )
    assert made.status_code == 201, made.text
    await expect(listed.get_by_role("link", name="late_comer")).to_be_visible(timeout=SOON_MS)
    assert world.api.delete("/extensions/late_comer").status_code == 200
    await expect(listed.get_by_role("link", name="late_comer")).to_have_count(0, timeout=SOON_MS)

    assert world.api.post("/extensions/owned_elsewhere/isolate").status_code == 200
    await expect(one.get_by_role("region", name="Breaker")).to_contain_text("isolated", timeout=SOON_MS)
    assert world.api.post("/extensions/owned_elsewhere/reset").status_code == 200
    await expect(one.get_by_role("region", name="Breaker")).not_to_contain_text("isolated", timeout=SOON_MS)

    world.second.stop()
    try:
        await expect(routers.locator("section.router")).to_have_count(1, timeout=SOON_MS)
    finally:
        world.second.start()
        eventually(world.routers_ready, "both routers answer")
    await expect(routers.locator("section.router")).to_have_count(2, timeout=SOON_MS)
    for page in pages:
        assert await page.evaluate("window.sameDocument") is True, page.url


async def test_focus_and_open_details_survive_an_update(visit: Any, world: InspectorWorld) -> None:
    page = (await visit("viewer")).page
    await page.goto("/policies/default")
    await page.get_by_text("Document", exact=True).click()
    link = page.get_by_role("region", name="Pipeline").get_by_role("link", name="normalize_text")
    await link.focus()
    await expect(page.locator("#live")).to_have_text("Live")
    await page.evaluate(
        "document.addEventListener('beamline:refreshed', () => { document.title = 'refreshed'; })"
    )
    world.route("something new to count")
    await expect(page).to_have_title("refreshed", timeout=SOON_MS)
    await expect(link).to_be_focused()
    await expect(page.locator("pre.code")).to_be_visible()


async def test_the_page_says_when_it_is_not_live_and_comes_back_by_itself(visit: Any) -> None:
    visitor = await visit("viewer")
    visitor.allowed = ("ERR_FAILED", "ERR_CONNECTION")
    page = visitor.page
    await page.route("**/api/v1/events*", lambda route: route.abort())
    await page.goto("/routers")
    await expect(page.locator("#live")).to_have_text("Not live")
    await page.unroute("**/api/v1/events*")
    await expect(page.locator("#live")).to_have_text("Live", timeout=SOON_MS)
