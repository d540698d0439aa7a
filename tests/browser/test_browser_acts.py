"""Changes from a page: confirmed with what they change, served by every router, felt by the next request."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import expect

from harness.inspector_world import InspectorWorld
from harness.processes import eventually

MAIL = "write to jane.doe@example.com"


async def test_a_disabled_extension_is_no_longer_called_and_an_enabled_one_is(
    visit: Any, world: InspectorWorld
) -> None:
    assert "jane.doe@example.com" not in world.route(MAIL).text
    visitor = await visit("operator")
    page = visitor.page
    await page.goto("/extensions/mask_sensitive_data/disable")
    await expect(page.get_by_role("heading", name="Disable mask_sensitive_data?")).to_be_visible()
    await expect(page.get_by_role("row", name="spec.enabled true false")).to_be_visible()
    await visitor.accessible()
    await visitor.picture("inspector-confirm")
    await page.get_by_role("button", name="Disable").click()
    await expect(page.get_by_role("heading", name="mask_sensitive_data is disabled")).to_be_visible()
    await expect(page.get_by_text("served by 2/2 routers")).to_be_visible()
    assert "jane.doe@example.com" in world.route(MAIL).text, "the next request passes the mask by"
    await page.goto("/extensions/mask_sensitive_data/enable")
    await page.get_by_role("button", name="Enable").click()
    await expect(page.get_by_text("served by 2/2 routers")).to_be_visible()
    eventually(lambda: world.serves("mask_sensitive_data"), "its process has started")
    assert "jane.doe@example.com" not in world.route(MAIL).text


async def test_new_weights_send_the_next_requests_elsewhere(visit: Any, world: InspectorWorld) -> None:
    visitor = await visit("admin")
    page = visitor.page
    await page.goto("/policies/default/weights")
    await page.get_by_label("mock_provider").fill("0")
    await page.get_by_label("mock_spare").fill("7")
    await page.get_by_role("button", name="Review the change").click()
    await expect(
        page.get_by_role("row", name=re.compile(r"spec\.steps\[2\]\.providers\[0\]\.weight 90 0"))
    ).to_be_visible()
    await expect(page.get_by_role("row", name="mock_spare 10 % 100 %")).to_be_visible()
    await visitor.accessible()
    await page.get_by_role("button", name="Change weights").click()
    await expect(page.get_by_text("served by 2/2 routers")).to_be_visible()
    assert world.providers(6) == {"mock_spare": 6}
    await page.goto("/policies/default/weights?w2.0=90&w2.1=10")
    await page.get_by_role("button", name="Change weights").click()
    await expect(page.get_by_text("served by 2/2 routers")).to_be_visible()


async def test_isolated_extensions_are_refused_until_they_are_reset(
    visit: Any, world: InspectorWorld
) -> None:
    visitor = await visit("operator")
    page = visitor.page
    await page.goto("/extensions/pii_guard/isolate")
    await expect(page.get_by_role("row", name=re.compile(r"breaker in \S+ closed isolated"))).to_have_count(2)
    await page.get_by_role("button", name="Isolate").click()
    await expect(page.get_by_text("served by 2/2 routers")).to_be_visible()
    assert world.route("hello").status_code == 503
    await page.goto("/extensions/pii_guard/reset")
    await page.get_by_role("button", name="Reset").click()
    await expect(page.get_by_text("served by 2/2 routers")).to_be_visible()
    assert world.route("hello").status_code == 200


async def test_what_a_gitops_tool_owns_names_its_owner_and_is_left_alone(visit: Any) -> None:
    visitor = await visit("operator")
    page = visitor.page
    await page.goto("/extensions/owned_elsewhere/disable")
    await expect(page.get_by_text(re.compile("It belongs to Argo CD"))).to_be_visible()
    await expect(page.get_by_role("button", name="Disable")).to_have_count(0)
    await visitor.accessible()


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 403)])
async def test_weights_are_for_admins(visit: Any, role: str, status: int) -> None:
    visitor = await visit(role)
    visitor.allowed = ("status of 403",)
    answer = await visitor.page.goto("/policies/default/weights")
    assert answer.status == status
