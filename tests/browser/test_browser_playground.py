"""The playground: an answer as it comes, its way, two policies side by side, and routers that want a key."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from harness.canaries import leaks
from harness.inspector_world import InspectorWorld
from harness.processes import eventually


async def ask(page: Page, **fields: str) -> None:
    """Fills the form by its labels and sends it."""
    for label, text in fields.items():
        await page.get_by_label(LABELS[label], exact=label != "key").fill(text)
    await page.get_by_role("button", name="Send").click()


LABELS = {
    "prompt": "Prompt",
    "policy": "Policy",
    "compare": "Compare with",
    "model": "Model",
    "tenant": "Tenant",
    "headers": "Headers, one a line",
    "key": "API key",
}


async def test_an_answer_and_its_way_are_shown_with_a_key_that_goes_no_further(
    visit: Any, world: InspectorWorld
) -> None:
    visitor = await visit("operator")
    page, key = visitor.page, world.keys["shop"]
    await page.goto("/playground")
    await ask(page, prompt="Hello, mail me at jane@example.com")
    await expect(page.get_by_role("article")).to_contain_text("UNAUTHENTICATED")
    await expect(page.get_by_text("The routers here want an API key")).to_be_visible()
    await page.get_by_label("API key").fill(key)
    await page.get_by_label("Prompt").press("Control+Enter")
    answer = page.get_by_role("article", name="default")
    await expect(answer).to_contain_text("hello, mail me at [EMAIL]")
    await expect(answer).to_contain_text("Provider mock_")
    await expect(answer.locator("tbody tr")).to_have_count(4)
    await visitor.accessible()
    await visitor.picture("inspector-playground")
    await ask(page, prompt="my ssn is 123-45-6789")
    await expect(answer).to_contain_text("VALIDATION_REJECTED")
    assert await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == (
        '[{},{},""]'
    )
    await page.reload()
    await expect(page.get_by_label("API key")).to_have_value("")
    request = answer_id(world)
    await page.goto(f"/requests/{request}")
    assert key not in await page.content()
    assert leaks(world.texts(), {"the key": key}) == []


def answer_id(world: InspectorWorld) -> str:
    """The id of the newest request of the tenant whose key was used."""
    listed = world.api.get("/requests", params={"tenant": "shop", "limit": 1}).json()["items"]
    return str(listed[0]["request_id"])


async def test_parts_of_an_answer_appear_as_they_come_and_cancel_ends_the_request(
    visit: Any, world: InspectorWorld
) -> None:
    visitor = await visit("operator")
    page = visitor.page
    await page.goto("/playground")
    words = " ".join(f"word{number}" for number in range(24))
    await ask(page, prompt=words, model="slow-1", key=world.keys["shop"])
    article = page.get_by_role("article")
    output = article.locator(".output")
    await expect(output).to_contain_text("word1")
    first = await output.inner_text()
    assert words.startswith(first)
    assert len(first) < len(words), "the rest is still to come"
    await expect(article).to_contain_text("answering")
    await page.wait_for_function(
        "least => document.querySelector('.output').textContent.length > least", arg=len(first)
    )
    await page.get_by_role("button", name="Cancel").click()
    await expect(article).to_contain_text("cancelled")
    cut = await output.inner_text()
    assert words.startswith(cut)
    assert len(cut) < len(words)
    await visitor.accessible()
    await expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    await page.get_by_role("button", name="Send").click()
    await expect(output).not_to_be_empty()
    await page.keyboard.press("Escape")
    await expect(article).to_contain_text("cancelled")
    cancelled(world, 2)


def cancelled(world: InspectorWorld, many: int) -> None:
    """Waits until so many requests ended because their caller had left."""

    def there() -> bool:
        found = world.api.get("/requests", params={"status": "CANCELLED"}).json()["items"]
        return len(found) == many

    eventually(there, f"the router ended {many} requests")


async def test_two_policies_are_compared_side_by_side(visit: Any, world: InspectorWorld) -> None:
    visitor = await visit("operator", dark=True)
    page = visitor.page
    await page.goto("/playground?policy=default")
    await ask(page, prompt="HELLO", compare="acme-chat", key=world.keys["acme"])
    await expect(page.get_by_role("article", name="default")).to_contain_text("to: hello")
    await expect(page.get_by_role("article", name="acme_chat")).to_contain_text("to: HELLO")
    await expect(page.get_by_text("different answers")).to_be_visible()
    await expect(page.locator("table.waterfall")).to_have_count(2)
    await visitor.accessible()
    await visitor.picture("inspector-compare", whole=True)


WRONG = {
    "a header without a colon": ({"headers": "no colon"}, "a header is written as name: value"),
    "a key among the headers": ({"headers": "X-Api-Key: abc"}, "an API key goes into its own field"),
    "no name of a policy": ({"policy": "Not/a name"}, "policy: "),
    "no tenant": ({"tenant": "no such\ttenant <b>"}, "tenant_id"),
    "a tenant that is not the key's": ({"tenant": "acme"}, "PERMISSION_DENIED"),
    "a policy that is not there": ({"policy": "nowhere"}, "NOT_FOUND"),
    "a key that nobody knows": ({"key": "blm_nobody_knows"}, "the API key is not valid"),
    "no key": ({"key": "two words"}, "key: "),
}


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_what_is_wrong_with_a_request_is_told_beside_it(
    visit: Any, world: InspectorWorld, scripts: bool
) -> None:
    visitor = await visit("operator", scripts=scripts)
    visitor.allowed = ("status of 400",)
    blank = dict.fromkeys(LABELS, "")
    await visitor.page.goto("/playground")
    for what, (fields, said) in WRONG.items():
        await ask(visitor.page, **blank | {"prompt": "hello", "key": world.keys["shop"]} | fields)
        await expect(visitor.page.locator("#answers"), what).to_contain_text(said)
        assert world.keys["shop"] not in await visitor.page.content(), "no page says a key again"


async def test_without_scripts_the_answer_comes_as_a_whole_page(visit: Any, world: InspectorWorld) -> None:
    page = (await visit("operator", scripts=False)).page
    await page.goto("/playground?policy=default")
    await ask(page, prompt="HELLO", compare="acme-chat", key=world.keys["acme"])
    await expect(page.get_by_role("article", name="acme_chat")).to_contain_text("to: HELLO")
    await expect(page.get_by_text("different answers")).to_be_visible()
    await expect(page.get_by_label("Compare with")).to_have_value("acme-chat")
    await expect(page.get_by_label("API key")).to_have_value("")


async def test_a_viewer_can_not_send_even_by_hand(visit: Any) -> None:
    visitor = await visit("viewer")
    await visitor.page.goto("/playground")
    await expect(visitor.page.get_by_text("Sending a request needs the role operator.")).to_be_visible()
    await expect(visitor.page.locator("#ask")).to_have_count(0)
    word = await visitor.word()
    origin = {"origin": visitor.url, "x-beamline-page": word}
    asked = {"request": {"prompt": "x"}}
    for path, how in (
        ("/playground", {"form": {"word": word, "prompt": "x"}}),
        ("/api/v1/playground", {"data": asked, "headers": origin}),
        ("/api/v1/playground/stream", {"data": asked, "headers": origin}),
    ):
        answer = await visitor.context.request.post(path, **how)
        assert answer.status == 403, path


def test_the_stream_is_told_as_events_and_bound_to_ones_own_tenants(world: InspectorWorld) -> None:
    body = {"request": {"prompt": "hello", "tenant_id": "shop"}, "key": world.keys["shop"]}
    answer = world.api.post("/playground/stream", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = re.findall(r"^event: (.+)$", answer.text, re.MULTILINE)
    assert (events[0], events[-2:]) == ("begin", ["answer", "end"])
    assert set(events[1:-2]) == {"chunk"}
    assert world.keys["shop"] not in answer.text
    theirs = {"authorization": f"Bearer {world.token('operator', ['acme'])}"}
    refused = world.api.post("/playground/stream", json=body, headers=theirs)
    assert (refused.status_code, refused.json()["field"]) == (403, "request.tenant_id")
