"""The pages of requests: waterfalls, filters, a watch, one request. What somebody else wrote stays text."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.async_api import expect

from beamline_router.core.keys import within
from harness.inspector_world import InspectorWorld

XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onfocus=alert(1) autofocus='",
    "</textarea></style></script><h1>",
    "</pre><iframe srcdoc='<script>alert(1)</script>'>",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<!-- ]]>",
    "<a href=http://other.example/>\u202eclick",
]
TEXT = " ".join(XSS)


def request_id(answer: Any) -> str:
    return str(answer.headers["x-request-id"])


async def test_requests_are_listed_with_their_waterfall_and_filtered(
    visit: Any, world: InspectorWorld
) -> None:
    good = request_id(world.route("hello", tenant_id="acme", model="gpt-4o"))
    bad = request_id(world.route("my ssn is 123-45-6789", tenant_id="shop"))
    visitor = await visit("viewer")
    page = visitor.page
    await page.goto("/requests")
    row = page.get_by_role("row").filter(has=page.get_by_label(f"Request {bad}"))
    await expect(row).to_contain_text("VALIDATION_REJECTED")
    await expect(row).to_contain_text("shop")
    lane = row.get_by_role("img")
    await expect(lane).to_have_accessible_name(re.compile(r"normalize_text ok .* pii_guard rejected"))
    await expect(lane.locator("rect.bar")).to_have_count(2)
    await visitor.accessible()
    await page.get_by_label("Tenant", exact=True).fill("acme")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_label(f"Request {good}")).to_be_visible()
    await expect(page.get_by_label(f"Request {bad}")).to_have_count(0)
    await page.goto("/requests?status=VALIDATION_REJECTED&policy=default&extension=pii-guard&q=" + bad[:12])
    await expect(page.get_by_label(f"Request {bad}")).to_be_visible()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.goto("/requests?policy=Not/A%20Name")
    await expect(page.get_by_text("nothing can have this policy")).to_be_visible()


async def test_a_watch_shows_new_requests_as_they_come_until_paused(
    visit: Any, world: InspectorWorld
) -> None:
    visitor = await visit("operator")
    page = visitor.page
    await page.goto("/requests")
    await expect(page.locator("#live")).to_have_text("Live")
    await page.get_by_role("button", name="Watch", exact=True).click()
    await expect(page.get_by_text(re.compile(r"Watching for \d+ more seconds"))).to_be_visible()
    first = request_id(world.route("first"))
    await expect(page.get_by_label(f"Request {first}")).to_be_visible(timeout=4_000)
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("button", name="Resume")).to_have_attribute("aria-pressed", "true")
    async with page.expect_response(re.compile("/requests$")):
        second = request_id(world.route("second"))
    await expect(page.get_by_label(f"Request {second}")).to_have_count(0)
    await visitor.picture("inspector-requests")
    await page.get_by_role("button", name="Resume").click()
    await expect(page.get_by_label(f"Request {second}")).to_be_visible()


async def test_content_is_seen_by_an_admin_while_a_watch_with_content_is_on(
    visit: Any, world: InspectorWorld
) -> None:
    admin, operator = await visit("admin"), await visit("operator")
    page = admin.page
    await page.goto("/requests")
    await page.get_by_label("with content").check()
    await page.get_by_role("button", name="Watch", exact=True).click()
    await expect(page.get_by_text(re.compile(r"Watching for \d+ more seconds"))).to_be_visible()
    one = request_id(world.route(TEXT))
    await page.get_by_label(f"Request {one}").click()
    content = page.get_by_role("region", name="Content")
    await expect(content).to_contain_text(XSS[0])
    await expect(content).to_contain_text("Mock response to: ")
    await operator.page.goto(f"/requests/{one}")
    await expect(operator.page.get_by_role("heading", level=1)).to_contain_text(one)
    await expect(operator.page.get_by_role("region", name="Content")).to_have_count(0)
    await operator.page.goto("/requests")
    await expect(operator.page.get_by_label("with content")).to_have_count(0)
    origin = {"origin": world.url, "x-beamline-page": await operator.word()}
    asked = {"seconds": 60, "content": True}
    answer = await operator.context.request.post("/api/v1/trail/watch", data=asked, headers=origin)
    assert (answer.status, (await answer.json())["field"]) == (403, "content")


async def test_one_request_says_which_way_it_went_and_what_one_like_it_would_meet(
    visit: Any, world: InspectorWorld
) -> None:
    one = request_id(world.route("hello", tenant_id="acme", environment="prod", model="gpt-4o"))
    visitor = await visit("viewer")
    page = visitor.page
    await page.goto("/requests")
    await page.get_by_label(f"Request {one}").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(one)
    steps = page.get_by_role("region", name="Steps").get_by_role("row")
    await expect(steps).to_have_count(3)
    await expect(steps.filter(has_text="pii_guard")).to_contain_text("shadow")
    await expect(steps.filter(has_text="mock_spare")).to_contain_text("first in order")
    await visitor.picture("inspector-request", whole=True)
    await page.get_by_role("link", name="Explain this one").click()
    for label, text in (
        ("Tenant", "acme"),
        ("Environment", "prod"),
        ("Model", "gpt-4o"),
        ("Request id", one),
    ):
        await expect(page.get_by_label(label, exact=True)).to_have_value(text)
    explained = page.get_by_role("region", name="Its way now")
    await expect(explained).to_contain_text("Policy acme_chat, because of those that match")
    await expect(explained.get_by_role("row").filter(has_text="mock_provider")).to_contain_text("fallback")
    await visitor.accessible()
    await visitor.picture("inspector-explain", whole=True)


async def test_explain_takes_all_that_matching_looks_at(visit: Any, world: InspectorWorld) -> None:
    """The policy picky asks for tenant, environment, model and header, and takes half of the request ids."""
    asked = {"tenant": "picky", "environment": "lab", "model": "odd-9", "headers": "X-Team: red"}
    taken = [key for key in map(str, range(40)) if within(50, "picky", key)]
    left = [key for key in map(str, range(40)) if key not in taken]
    visitor = await visit("viewer")
    page = visitor.page
    explained = page.get_by_role("region", name="Its way now")
    for fields, policy in (
        ({**asked, "id": taken[0]}, "picky"),
        ({**asked, "id": left[0]}, "default"),
        ({**asked, "id": taken[0], "headers": "X-Team: blue"}, "default"),
        ({**asked, "id": taken[0], "environment": ""}, "default"),
        ({**asked, "id": taken[0], "model": "odd-8"}, "default"),
        ({**asked, "id": taken[0], "tenant": "other"}, "default"),
        ({**asked, "policy": "acme-chat"}, "acme_chat"),
    ):
        if "id" in fields:
            stated = {"tenant_id": fields["tenant"], "model": fields["model"]}
            stated |= {"environment": fields["environment"]} if fields["environment"] else {}
            name, _, value = fields["headers"].partition(": ")
            answer = world.route("hello", {"x-request-id": fields["id"], name: value}, **stated)
            assert answer.json()["policy"] == policy, (fields, answer.text)
        await page.goto(f"/explain?{urlencode(fields)}")
        await expect(explained).to_contain_text(f"Policy {policy}, because")
    await page.goto(f"/explain?{urlencode({**asked, 'id': taken[0]})}")
    await expect(explained).to_contain_text(f"Its share is decided by the key {taken[0]}")
    await expect(explained).to_contain_text("all 2 routers say so")
    await explained.get_by_text(re.compile("Why not the other")).click()
    await expect(explained.get_by_role("listitem").filter(has_text="acme_chat")).to_contain_text(
        "match.tenants does not hold"
    )
    visitor.allowed = ("status of 400",)
    for fields, said in (
        ({"tenant": "no tenant"}, "tenant_id must be"),
        ({"headers": "no colon"}, "a header is written as name: value"),
        ({"headers": "X-Api-Key: abc"}, "an API key goes into its own field"),
    ):
        await page.goto(f"/explain?{urlencode(fields)}")
        await expect(page.get_by_text(said)).to_be_visible()


async def test_who_is_bound_to_a_tenant_explains_by_its_own_policies_alone(
    visit: Any, world: InspectorWorld
) -> None:
    visitor = await visit("operator", tenants=["shop"])
    visitor.allowed = ("status of 403", "status of 404")
    page = visitor.page
    await page.goto("/explain?tenant=shop")
    explained = page.get_by_role("region", name="Its way now")
    await expect(explained).to_contain_text("Policy default")
    assert "acme_chat" not in await page.content()
    await page.goto("/explain?tenant=acme")
    await expect(page.get_by_text("this tenant is not yours")).to_be_visible()
    await page.goto("/explain?tenant=shop&policy=acme-chat")
    await expect(page.get_by_text("there is no such policy")).to_be_visible()
    theirs = {"authorization": f"Bearer {world.token('operator', ['shop'])}"}
    request = {"prompt": "x", "tenant_id": "shop"}
    answer = world.api.post("/explain", json={"request": request}, headers=theirs)
    assert "acme_chat" not in answer.text
    for path, body in (
        ("/explain", {"request": {**request, "policy": "acme-chat"}}),
        ("/playground", {"request": request, "policy": "acme_chat"}),
        ("/playground/stream", {"request": request, "compare": "acme_chat"}),
    ):
        refused = world.api.post(path, json=body, headers=theirs)
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found"), path


async def test_who_is_bound_to_a_tenant_sees_its_requests_alone(visit: Any, world: InspectorWorld) -> None:
    own = request_id(world.route("hello", tenant_id="acme"))
    other = request_id(world.route("hello", tenant_id="shop"))
    visitor = await visit("viewer", tenants="acme")
    visitor.allowed = ("status of 404",)
    page = visitor.page
    await page.goto("/requests")
    await expect(page.get_by_label(f"Request {own}")).to_be_visible()
    await expect(page.get_by_label(f"Request {other}")).to_have_count(0)
    await page.goto("/requests?tenant=shop")
    await expect(page.get_by_text("No request that the routers remember fits.")).to_be_visible()
    answer = await page.goto(f"/requests/{other}")
    assert answer.status == 404


async def test_hostile_text_stays_text_in_prompts_answers_errors_and_trails(
    visit: Any, world: InspectorWorld
) -> None:
    """Any script that ran, tag that came to be and host that was asked would be a fault of the visit."""
    refused = request_id(world.route(TEXT, tenant_id="acme", model=XSS[0]))
    visitor = await visit("admin")
    visitor.allowed = ("status of 400",)
    page = visitor.page
    await page.goto("/playground?policy=default")
    await page.get_by_label("Prompt").fill(TEXT)
    await page.get_by_label("Compare with").fill("acme_chat")
    await page.get_by_label("API key").fill(world.keys["acme"])
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_role("article", name="acme_chat")).to_contain_text(XSS[0])
    for label in ("Policy", "Tenant", "Headers, one a line"):
        await page.goto("/playground")
        await page.get_by_label("Prompt").fill("x")
        await page.get_by_label("API key").fill(world.keys["acme"])
        await page.get_by_label(label, exact=True).fill(TEXT[:60])
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator("#answers .notice, #answers article")).to_have_count(1)
    for path in (
        f"/requests/{refused}",
        "/extensions/owned_elsewhere",
        "/extensions/owned_elsewhere/disable",
    ):
        await page.goto(path)
    for text in (TEXT[:200], TEXT[200:400]):
        await page.goto("/requests")
        await page.get_by_label("Text", exact=True).fill(text)
        await page.get_by_role("button", name="Filter").click()
        await expect(page.get_by_label("Text", exact=True)).to_have_value(text)
    assert await page.locator("main script, main iframe, main img, h1:has-text('alert')").count() == 0
    assert visitor.hosts == {world.url}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_pages_of_requests_fit_a_phone_and_are_accessible(
    visit: Any, world: InspectorWorld, dark: bool
) -> None:
    one = request_id(world.route("my ssn is 123-45-6789", tenant_id="acme" * 20, model="m" * 200))
    visitor = await visit("admin", dark=dark, phone=True)
    for path in ("/requests", f"/requests/{one}", f"/explain?tenant={'acme' * 20}", "/playground"):
        await visitor.page.goto(path)
        await visitor.fits()
        await visitor.accessible()
