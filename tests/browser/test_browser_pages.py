"""The reading pages in front of a real world: what they show, for whom, by keyboard, in both themes,
on a phone.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.async_api import expect

from harness.inspector_world import InspectorWorld

PAGES = {
    "/": "Overview",
    "/extensions": "Extensions",
    "/extensions/pii_guard": "pii_guard",
    "/policies": "Policies",
    "/policies/default": "default",
    "/routers": "Routers",
    "/audit": "Audit",
}
NARROW = {"width": 360, "height": 740}


@pytest.mark.parametrize(
    ("dark", "phone"),
    [pytest.param(False, False, id="light, desktop"), pytest.param(True, True, id="dark, 360 pixels wide")],
)
async def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    visit: Any, world: InspectorWorld, dark: bool, phone: bool
) -> None:
    world.route("hello")
    visitor = await visit("admin", dark=dark, phone=phone)
    if phone:
        await visitor.page.set_viewport_size(NARROW)
    for path, heading in PAGES.items():
        await visitor.page.goto(path)
        await expect(visitor.page.get_by_role("heading", level=1)).to_contain_text(heading)
        await expect(visitor.page.locator("#live")).to_have_text("Live")
        await visitor.accessible()
        await visitor.fits()
        name = heading.lower() if path.count("/") < 2 else path.split("/")[1].rstrip("s").replace("ie", "y")
        if not phone or name in {"overview", "policy"}:
            await visitor.picture(f"inspector-{name}{'-phone' if phone else ''}")
    assert visitor.hosts == {world.url}


async def test_the_way_that_one_is_on_is_marked_and_the_keyboard_gets_everywhere(visit: Any) -> None:
    page = (await visit("viewer")).page
    await page.goto("/")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    ways = page.get_by_role("navigation", name="Pages")
    await ways.get_by_role("link", name="Policies").press("Enter")
    await expect(page).to_have_url(re.compile(r"/policies$"))
    await expect(ways.locator("[aria-current=page]")).to_have_text("Policies")
    await page.get_by_role("link", name="default", exact=True).press("Enter")
    await expect(ways.locator("[aria-current]")).to_have_text("Policies")


async def test_an_extension_says_who_uses_it_how_it_is_and_what_it_is_given(
    visit: Any, world: InspectorWorld
) -> None:
    world.route("hello")
    page = (await visit("viewer")).page
    await page.goto("/extensions/pii_guard")
    conditions = page.get_by_role("region", name="Conditions")
    await expect(conditions.get_by_role("row", name="Programmed True")).to_be_visible()
    config = page.get_by_role("region", name="Config")
    await expect(config.get_by_role("row", name="block_on_match true")).to_be_visible()
    users = page.get_by_role("region", name="Used by")
    await expect(users.get_by_role("link", name="acme_chat")).to_be_visible()
    await expect(users.get_by_role("link", name="default")).to_be_visible()
    await expect(page.get_by_role("region", name="Audit")).to_contain_text("created")
    await expect(page.get_by_role("region", name="Events")).to_contain_text("WorkloadApplied")
    await expect(page.locator("#figures").get_by_text("2/2", exact=True)).to_be_visible()
    charts = page.get_by_role("region", name="Calls of the last 30 minutes")
    latency = charts.get_by_role("img", name=re.compile(r"^Latency over 30 minutes: p99 now [\d.]+.ms"))
    await expect(latency).to_be_visible(timeout=20_000)  # routers are asked every five seconds
    calls = charts.get_by_role("img", name=re.compile(r"^Requests per second over 30 minutes: now 0?\.?\d+"))
    await expect(calls.locator("path.line")).to_have_attribute("d", re.compile(r"^M"))
    errors = charts.get_by_role("img", name=re.compile(r"^Errors per second over 30 minutes: now \d"))
    await expect(errors).to_be_visible()


async def test_a_policy_is_drawn_with_its_shares_shadow_fallback_and_counts(
    visit: Any, world: InspectorWorld
) -> None:
    page = (await visit("viewer")).page
    await page.goto("/policies/acme_chat")
    drawing = page.get_by_role("region", name="Pipeline")
    await expect(drawing.locator(".box.shadow")).to_contain_text("pii_guard")
    await expect(drawing.locator(".fallback")).to_contain_text("mock_provider")
    await page.goto("/policies/default")
    titles = await drawing.locator(".title b").all_text_contents()
    assert titles == ["1 Prepare", "2 Check", "3 Provider", "4 Finish"]
    await expect(drawing.locator(".box", has_text="mock_provider")).to_contain_text("90 %")
    count = drawing.locator(".edge .count b").first
    before = int(await count.inner_text()) if await count.count() else 0
    for _ in range(3):
        world.route("counted")
    grown = "least => Number(document.querySelector('.edge .count b')?.textContent) >= least"
    await page.wait_for_function(grown, arg=before + 3, timeout=20_000)


async def test_who_is_bound_to_a_tenant_sees_only_what_concerns_it(visit: Any) -> None:
    stranger = (await visit("viewer", tenants=["globex"])).page
    await stranger.goto("/")
    await expect(stranger.locator("#live")).to_have_text("Live")
    await expect(stranger.get_by_role("region", name="Traffic of the last 30 minutes")).to_have_count(0)
    for path in ("/policies", "/audit", "/"):
        await stranger.goto(path)
        await expect(stranger.get_by_role("link", name="default", exact=True).first).to_be_visible()
        await expect(stranger.get_by_role("link", name="acme_chat")).to_have_count(0)
    await stranger.goto("/extensions")
    await expect(stranger.get_by_role("link", name="owned_elsewhere")).to_have_count(0)
    await stranger.goto("/routers")
    await expect(
        stranger.get_by_text("Routers serve every tenant, and you are bound to some")
    ).to_be_visible()
    own = (await visit("viewer", tenants=["acme"])).page
    await own.goto("/policies")
    await expect(own.get_by_role("link", name="acme_chat")).to_be_visible()


def audited(world: InspectorWorld) -> list[dict[str, Any]]:
    """Every row of the audit log, newest first, read page by page."""
    found: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    while True:
        page = world.api.get("/audit", params={"limit": 200, **before}).json()
        found += page["items"]
        if page["next"] is None:
            return found
        before = {"before": page["next"]}


async def test_search_and_filters_stay_in_the_address(visit: Any, world: InspectorWorld) -> None:
    page = (await visit("viewer")).page
    await page.goto("/extensions")
    await page.get_by_label("Type").select_option("provider")
    await expect(page).to_have_url(re.compile(r"/extensions\?type=provider$"))
    await expect(page.locator("#live")).to_have_text(
        "Live"
    )  # its scripts keep empty fields out of the address
    await page.get_by_role("searchbox", name="Search").fill("SPARE")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(r"/extensions\?q=SPARE&type=provider$"))
    await expect(page.locator("#rows tr")).to_have_count(1)
    await page.goto("/audit?action=created&q=mock_spare")
    await expect(page.get_by_label("Action")).to_have_value("created")
    wanted = [
        row
        for row in audited(world)
        if row["action"] == "created" and "mock_spare" in json.dumps([row["object_id"], row["changes"]])
    ]
    assert {row["object_id"] for row in wanted} >= {"mock_spare", "default", "acme_chat"}, "who names it, too"
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(len(wanted))
    for row, shown in zip(wanted, await rows.all(), strict=True):
        await expect(shown).to_contain_text(row["object_id"])
        await expect(shown).to_contain_text("created")
    await page.goto("/audit?q=nobody-did-this")
    await expect(page.get_by_text("No change matches.")).to_be_visible()


async def test_the_theme_is_chosen_and_kept_and_an_id_is_copied(visit: Any) -> None:
    visitor = await visit("viewer")
    page = visitor.page
    await visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto("/extensions/mock_provider")
    await page.get_by_role("button", name="Dark theme").click()
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    await page.get_by_role("button", name="Copy id mock_provider").click()
    await expect(page.locator("#said")).to_have_text("Copied mock_provider")
    assert await page.evaluate("navigator.clipboard.readText()") == "mock_provider"
    exact = page.locator("time").first
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", await exact.get_attribute("title") or "")


async def test_every_page_can_be_read_without_a_script(visit: Any) -> None:
    page = (await visit("viewer", scripts=False)).page
    for path, heading in PAGES.items():
        await page.goto(path)
        await expect(page.get_by_role("heading", level=1)).to_contain_text(heading)
    await page.goto("/policies")
    await page.get_by_role("link", name="acme_chat").click()
    await expect(page.get_by_role("region", name="Pipeline")).to_contain_text("mock_spare")
