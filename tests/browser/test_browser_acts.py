"""Changes from a page: confirmed with what they change, served by every router, felt by the next request."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from harness.inspector_world import InspectorWorld
from harness.processes import eventually

MAIL = "write to jane.doe@example.com"


async def opened(page: Page, path: str, button: str) -> Any:
    """The dialog that a page's button opens."""
    await page.goto(path)
    await page.get_by_role("link", name=button, exact=True).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    return dialog


async def confirmed(dialog: Any, button: str) -> None:
    await dialog.get_by_role("button", name=button, exact=True).click()
    await expect(dialog.get_by_text("served by 2/2 routers")).to_be_visible()


async def test_a_disabled_extension_is_no_longer_called_and_an_enabled_one_is(
    visit: Any, world: InspectorWorld
) -> None:
    assert "jane.doe@example.com" not in world.route(MAIL).text
    visitor = await visit("operator")
    page = visitor.page
    dialog = await opened(page, "/extensions/mask_sensitive_data", "Disable")
    await expect(dialog).to_have_accessible_name("Disable mask_sensitive_data?")
    await expect(dialog.get_by_role("row", name="spec.enabled true false")).to_be_visible()
    await expect(dialog.get_by_text("Named by 1 policy: default.")).to_be_visible()
    await visitor.accessible()
    await visitor.picture("inspector-confirm")
    await confirmed(dialog, "Disable")
    assert "jane.doe@example.com" in world.route(MAIL).text, "the next request passes the mask by"
    await dialog.get_by_role("link", name="Done").click()
    await expect(dialog).to_have_count(0)
    enable = page.get_by_role("link", name="Enable", exact=True)
    await expect(enable).to_be_visible()
    await enable.click()
    await confirmed(page.get_by_role("dialog"), "Enable")
    eventually(lambda: world.serves("mask_sensitive_data"), "its process has started")
    assert "jane.doe@example.com" not in world.route(MAIL).text
    newest = world.api.get("/audit", params={"object_id": "mask_sensitive_data"}).json()["items"]
    assert [(row["action"], row["changed_by"]) for row in newest[:2]] == [
        ("enabled", "operator@example.com (beamline-admin)"),
        ("disabled", "operator@example.com (beamline-admin)"),
    ]


async def test_new_weights_send_the_next_requests_elsewhere(visit: Any, world: InspectorWorld) -> None:
    visitor = await visit("admin")
    page = visitor.page
    dialog = await opened(page, "/policies/default", "Change weights")
    await dialog.get_by_label("mock_provider").fill("0")
    await dialog.get_by_label("mock_spare").fill("7")
    await dialog.get_by_label("mock_spare").press("Enter")
    weight = re.compile(r"spec\.steps\[2\]\.providers\[0\]\.weight 90 0")
    await expect(dialog.get_by_role("row", name=weight)).to_be_visible()
    await expect(dialog.get_by_role("row", name=re.compile("mock_spare 10 % 100 %"))).to_be_visible()
    await visitor.accessible()
    await visitor.picture("inspector-weights")
    await confirmed(dialog, "Change weights")
    assert world.providers(6) == {"mock_spare": 6}
    await page.goto("/policies/default/weights?w2.0=90&w2.1=10")
    await page.get_by_role("button", name="Change weights").click()
    await expect(page.get_by_text("served by 2/2 routers")).to_be_visible()


async def test_an_isolated_extension_is_refused_until_it_is_reset(visit: Any, world: InspectorWorld) -> None:
    visitor = await visit("operator")
    dialog = await opened(visitor.page, "/extensions/pii_guard", "Isolate")
    rows = dialog.get_by_role("row", name=re.compile(r"breaker in \S+ closed isolated"))
    await expect(rows).to_have_count(2)
    await confirmed(dialog, "Isolate")
    assert world.route("hello").status_code == 503
    await visitor.page.goto("/extensions/pii_guard/reset")
    await visitor.page.get_by_role("button", name="Reset").click()
    await expect(visitor.page.get_by_text("served by 2/2 routers")).to_be_visible()
    assert world.route("hello").status_code == 200


async def test_a_dialog_is_used_by_keyboard_alone(visit: Any) -> None:
    visitor = await visit("operator", dark=True)
    page = visitor.page
    await page.goto("/extensions/normalize_text")
    link = page.get_by_role("link", name="Disable", exact=True)
    await link.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("link", name="Cancel")).to_be_focused()
    for _ in range(5):
        await page.keyboard.press("Tab")
        assert await page.evaluate(
            "!document.hasFocus() || document.activeElement === document.body"
            " || document.activeElement.closest('dialog') !== null"
        ), "the focus stays inside"
    await visitor.accessible()
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(link).to_be_focused()


async def test_what_somebody_else_changed_meanwhile_is_not_overwritten(
    visit: Any, world: InspectorWorld
) -> None:
    visitor = await visit("admin")
    visitor.allowed = ("status of 409",)
    page = visitor.page
    dialog = await opened(page, "/extensions/normalize_text", "Disable")
    held = world.api.get("/extensions/normalize_text/conditions").json()
    spec = {**world.spec("normalize-text"), "timeoutMs": 1500 + held["generation"]}
    changed = {"spec": spec, "generation": held["generation"]}
    assert world.api.put("/extensions/normalize_text", json=changed).status_code == 200
    await dialog.get_by_role("button", name="Disable").click()
    await expect(dialog.get_by_text(re.compile("read it again"))).to_be_visible()
    await dialog.get_by_role("button", name="Close").click()
    assert world.api.get("/extensions/normalize_text").json()["enabled"] is True


async def test_what_a_gitops_tool_owns_names_its_owner_and_is_left_alone(visit: Any) -> None:
    visitor = await visit("operator")
    dialog = await opened(visitor.page, "/extensions/owned_elsewhere", "Disable")
    await expect(dialog.get_by_text(re.compile("It belongs to Argo CD"))).to_be_visible()
    await expect(dialog.get_by_role("button", name="Disable")).to_have_count(0)
    await visitor.accessible()


async def test_an_admin_may_insist_on_changing_what_a_gitops_tool_owns(visit: Any) -> None:
    visitor = await visit("admin")
    dialog = await opened(visitor.page, "/extensions/owned_elsewhere", "Disable")
    await dialog.get_by_role("button", name="Disable").click()
    await expect(dialog.get_by_role("heading", name="Disable owned_elsewhere?")).to_be_visible()
    assert await dialog.get_by_label(re.compile("Change it all the same")).is_checked() is False
    await dialog.get_by_role("link", name="Cancel").click()


async def test_changes_work_without_scripts(visit: Any) -> None:
    visitor = await visit("operator", scripts=False)
    page = visitor.page
    await page.goto("/extensions/normalize_text")
    await page.get_by_role("link", name="Disable", exact=True).click()
    await expect(page.get_by_role("heading", name="Disable normalize_text?")).to_be_visible()
    await page.get_by_role("link", name="Cancel").click()
    await expect(page.get_by_role("heading", name="normalize_text", level=1)).to_be_visible()


QUESTIONS = ("/extensions/pii_guard/disable", "/policies/default/weights", "/policies/default/weights?w2.0=1")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_a_question_fits_a_phone_and_is_accessible(visit: Any, dark: bool) -> None:
    visitor = await visit("admin", dark=dark, phone=True)
    for path in QUESTIONS:
        await visitor.page.goto(path)
        await expect(visitor.page.locator("#act")).to_be_visible()
        await visitor.fits()
        await visitor.accessible()


FORBIDDEN = [
    pytest.param("viewer", "*", "/extensions/pii_guard/disable", id="a viewer disables"),
    pytest.param("viewer", "*", "/extensions/pii_guard/isolate", id="a viewer isolates"),
    pytest.param("operator", "*", "/policies/default/weights", id="an operator weighs"),
    pytest.param("admin", "acme", "/extensions/pii_guard/disable", id="a tenant's admin disables for all"),
    pytest.param("admin", "acme", "/policies/default/weights", id="a tenant's admin weighs for all"),
]


@pytest.mark.parametrize(("role", "tenants", "path"), FORBIDDEN)
async def test_who_may_not_act_is_refused_also_with_a_request_made_by_hand(
    visit: Any, world: InspectorWorld, role: str, tenants: str, path: str
) -> None:
    visitor = await visit(role, tenants=tenants)
    word = await visitor.word()
    form = {"word": word, "enabled": "false", "w2.0": "1", "force": "true"}
    for answer in (
        await visitor.context.request.get(path),
        await visitor.context.request.post(path, form=form),
    ):
        assert answer.status == 403, await answer.text()
    assert world.api.get("/extensions/pii_guard").json()["enabled"] is True
    assert world.route("hello").status_code == 200


async def test_a_viewer_sees_no_button(visit: Any) -> None:
    visitor = await visit("viewer")
    for path in ("/extensions/pii_guard", "/policies/default"):
        await visitor.page.goto(path)
        await expect(visitor.page.locator("[data-act]")).to_have_count(0)


PATH = "/extensions/pii_guard/disable"
FORGED = [
    pytest.param({}, {}, id="no word"),
    pytest.param({"word": "0" * 64}, {}, id="a word that somebody made up"),
    pytest.param(None, {"sec-fetch-site": "same-site"}, id="a page on another port of this machine"),
    pytest.param(None, {"sec-fetch-site": "cross-site"}, id="a page of another site"),
]


@pytest.mark.parametrize(("form", "headers"), FORGED)
async def test_a_form_that_is_not_ours_changes_nothing(
    visit: Any, world: InspectorWorld, form: dict[str, str] | None, headers: dict[str, str]
) -> None:
    visitor = await visit("admin")
    word = await visitor.word()
    sent = {"word": word} if form is None else form
    answer = await visitor.context.request.post(PATH, form=sent, headers=headers)
    assert answer.status == 403
    assert "does not come from a page of your session" in await answer.text()
    assert world.api.get("/extensions/pii_guard").json()["enabled"] is True
