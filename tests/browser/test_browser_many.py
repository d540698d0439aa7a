"""What no laptop has at will: 5,000 policies, a database that is away, names and errors that are markup."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, expect

from beamline_contract.reports import HealthDelta
from harness.chromium import Visitor
from harness.inspector_app import TOKEN, InspectorApp, extension, inspector_app, policy

POLICIES = 5_000
PAINTED = """() => new Promise((resolve) => new PerformanceObserver((list) => {
  const paint = list.getEntriesByName('first-contentful-paint')[0];
  if (paint) resolve(paint.startTime);
}).observe({ type: 'paint', buffered: true }))"""
"""Milliseconds from the start of the navigation until something is seen; once it is."""
XSS = (
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    '"><svg onload="window.hit = 1">',
    "' onfocus='window.hit = 1' autofocus='",
    "javascript:window.hit=1",
    "</title></textarea></style></script><b>",
    "{{ 7 * 7 }} ${7 * 7}",
)
STATUS = {
    "status": "ready",
    "revision": 1,
    "age_seconds": 1.5,
    "stale": {"registry": False, "nats": False, "from_file": False},
    "cache": {"load_count": 3, "error_count": 0, "total_extensions": 2, "enabled_extensions": 2},
    "limits": {"in_flight": 3, "max_in_flight": 512, "overload_share": 0.0},
    "breakers": {},
    "refused": [],
    "notices": [],
}


@asynccontextmanager
async def somebody(browser: Browser, app: InspectorApp, **how: Any) -> AsyncIterator[Visitor]:
    """Logged in with the token of the start; what goes wrong in the page fails the test."""
    visitor = await Visitor.open(browser, app.url, **how)
    try:
        await visitor.log_in(TOKEN)
        yield visitor
    finally:
        faults = await visitor.close()
    assert not faults, faults


def step(provider: str) -> dict[str, Any]:
    return {"action": "select_provider", "provider_id": provider, "fallback": []}


async def nodes(visitor: Visitor) -> int:
    return int(await visitor.page.evaluate("document.querySelectorAll('*').length"))


@pytest.mark.asyncio(loop_scope="session")
async def test_five_thousand_policies_cost_a_page_as_little_as_fifty(
    browser: Browser, record_property: Any
) -> None:
    async with inspector_app() as app:
        await app.write(
            extension("mock", "provider"),
            *(policy(f"p{number:04}", step("mock"), priority=number) for number in range(POLICIES)),
        )
        async with somebody(browser, app) as visitor:
            page = visitor.page
            for path, limit in (("/", 40_000), ("/policies", 120_000), ("/extensions/mock", 40_000)):
                answer = await page.goto(path)
                assert answer is not None
                assert len(await answer.body()) < limit, f"bytes of the first answer of {path}"
                assert await nodes(visitor) < 1_800, path
                painted = await page.evaluate(PAINTED)
                assert painted is not None, f"{path} painted nothing"
                record_property(f"first paint of {path}, ms", round(painted))
            await page.goto("/policies")
            await expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", str(POLICIES + 1))
            await page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
            await expect(page.get_by_role("link", name="p4999")).to_be_visible()
            await expect(page.get_by_role("link", name="p4999")).to_be_in_viewport()
            assert await nodes(visitor) < 3_600, "rows that scrolled away leave the document"
            await page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
            await expect(page.get_by_role("link", name="p2500")).to_be_in_viewport()
            assert await nodes(visitor) < 3_600
            row = page.get_by_role("row").filter(has=page.get_by_role("link", name="p2500"))
            await expect(row).to_have_attribute("aria-rowindex", "2502")
            await page.goto("/policies?offset=3000")
            await expect(page.get_by_role("link", name="p3000")).to_be_in_viewport()
            await page.goto("/policies?q=p49")
            await expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "101")
            await visitor.accessible()


@pytest.mark.asyncio(loop_scope="session")
async def test_a_list_without_a_script_has_links_to_the_next_rows(browser: Browser) -> None:
    async with inspector_app() as app:
        await app.write(*(extension(f"e{number:03}") for number in range(120)))
        async with somebody(browser, app, scripts=False) as visitor:
            page = visitor.page
            await page.goto("/extensions")
            await page.get_by_role("link", name="Next").click()
            await page.get_by_role("link", name="Next").click()
            await expect(page.get_by_role("link", name="e119")).to_be_visible()
            await expect(page.get_by_text("101–120 of 120 extensions")).to_be_visible()  # noqa: RUF001
            await page.get_by_role("link", name="Previous").click()
            await expect(page.get_by_role("link", name="e050")).to_be_visible()


@pytest.mark.asyncio(loop_scope="session")
async def test_without_a_database_or_nats_a_page_says_so_and_shows_what_it_can(browser: Browser) -> None:
    async with inspector_app(statuses={"router-1": STATUS}) as app:
        await app.write(extension("mock", "provider"), policy("default", step("mock")))
        async with somebody(browser, app) as visitor:
            page = visitor.page
            app.registry.away = True
            for path in ("/", "/policies", "/extensions", "/extensions/mock", "/policies/default", "/audit"):
                await page.goto(path)
                await expect(page.locator("#troubles")).to_contain_text("The registry does not answer.")
                await expect(page.locator("#troubles")).to_contain_text("revision 1, the last that was read")
            await page.goto("/policies/default")
            await expect(page.get_by_role("region", name="Pipeline")).to_contain_text("mock")
            await visitor.accessible()
            await page.goto("/routers")
            await expect(page.get_by_role("region", name="Router router-1")).to_contain_text("of 512")
            visitor.allowed = ("status of 503",)
            await page.goto("/policies/later")
            await expect(page.get_by_text("Whether this exists can't be said now.")).to_be_visible()
            app.registry.away, app.routers.away = False, True
            await page.goto("/")
            while "NATS does not answer" not in await page.locator("#troubles").inner_text():
                await page.reload()  # what routers said is kept for two seconds
            await page.goto("/routers")
            await expect(page.get_by_text("Unknown: routers can't be asked now.")).to_be_visible()
            await visitor.accessible()


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_everything_that_can_be_wrong_at_once_is_legible_and_no_markup(
    browser: Browser, dark: bool
) -> None:
    refused = [
        {"kind": "RoutingPolicy", "id": nasty, "generation": 1, "field": nasty, "reason": nasty}
        for nasty in XSS
    ]
    notices = [{"kind": "Extension", "id": XSS[0], "reason": "Complex", "message": XSS[1], "other_id": None}]
    told = {
        **STATUS,
        "refused": refused,
        "notices": notices,
        "breakers": {XSS[0]: "open", XSS[1]: "half-open"},
    }
    condition = {"type": "Ready", "status": "False", "reason": XSS[0], "message": XSS[1]}
    document = {
        "kind": "Extension",
        "metadata": {"name": XSS[0]},
        "spec": {"versionOf": XSS[1], "canary": {}},
        "status": {"conditions": [condition], "canary": {"state": XSS[0], "message": XSS[2], "weight": 5}},
    }
    async with inspector_app(statuses={XSS[3]: told}, documents=[document]) as app:
        for nasty in XSS:
            schema = {"properties": {nasty: {"type": "number", "description": nasty, "default": nasty}}}
            await app.write(
                extension(
                    nasty,
                    "provider",
                    subject=f"{nasty}.s",
                    version=nasty,
                    config={nasty: nasty},
                    metadata={nasty: nasty},
                    spec={"configSchema": schema, "versionOf": XSS[1]},
                ),
                policy(
                    nasty,
                    {"action": "extension_validator", "extension_id": nasty, "mode": "shadow", "name": nasty},
                    {**step(nasty), "fallback": [nasty, "none", *XSS]},
                    match={"tenants": [nasty], "headers": {nasty: nasty}},
                ),
                by=nasty,
            )
        await app.registry.fold_health([HealthDelta(extension_id=XSS[0], failure=9)], epoch=app.epoch)
        async with somebody(browser, app, dark=dark) as visitor:
            page, name = visitor.page, quote(XSS[0].replace("/", ""), safe="")
            lists = ("/", "/extensions", "/policies", "/routers", "/audit", f"/audit?q={quote(XSS[1])}")
            ones = [f"/{kind}/{quote(XSS[1], safe='')}" for kind in ("extensions", "policies")]
            for path in (*lists, *ones):
                await page.goto(path)
                await expect(page.locator("main")).to_contain_text("onerror='window.hit = 1'")
                await visitor.accessible()
                await visitor.fits()
                assert await page.evaluate("window.hit") is None, path
            visitor.allowed = ("status of 404",)
            await page.goto(f"/extensions/{name}")
            await expect(page.get_by_role("alert")).to_contain_text("there is no such extension")
            await page.set_viewport_size({"width": 360, "height": 740})
            for path in () if dark else (*lists, *ones):  # a theme changes no width
                await page.goto(path)
                await visitor.fits()
