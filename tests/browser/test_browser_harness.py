"""The watch on pages sees what it is there for: otherwise every test here would pass for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from harness.chromium import Visitor
from harness.inspector_world import InspectorWorld

WRONG = [
    pytest.param("console.error('broken')", "console: broken", id="an error in the console"),
    pytest.param(
        "setTimeout(() => { throw new Error('thrown') })", "uncaught: thrown", id="an uncaught error"
    ),
    pytest.param(
        "document.body.append(Object.assign(document.createElement('img'), {src: 'http://other.example/x.png'}))",
        "CSP: img-src",
        id="a picture of another host",
    ),
    pytest.param(
        "document.body.append(Object.assign(document.createElement('a'), {href: 'javascript:alert(1)'}));"
        "document.body.lastChild.click()",
        "CSP: script-src",
        id="a script in the page",
    ),
    pytest.param("alert('hello')", "a dialog of the browser", id="a dialog"),
    pytest.param(
        "location.href = 'http://other.example/'", "a request to another host", id="a way to another host"
    ),
]


@pytest.mark.parametrize(("script", "fault"), WRONG)
async def test_what_a_page_does_wrong_is_seen(
    browser: Any, world: InspectorWorld, script: str, fault: str
) -> None:
    visitor = await Visitor.open(browser, world.url)
    await visitor.page.goto("/login")
    await visitor.page.evaluate(f"() => {{ {script} }}")
    await visitor.page.wait_for_timeout(100)
    faults = await visitor.close()
    assert any(fault in found for found in faults), faults


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
async def test_the_login_page_is_accessible_and_fits(visit: Any, dark: bool, phone: bool) -> None:
    visitor = await visit(None, dark=dark, phone=phone)
    await visitor.page.goto("/")
    assert visitor.page.url.endswith("/login")
    await visitor.accessible()
    await visitor.fits()


async def test_a_wrong_token_is_told_so_and_a_right_one_gets_in(visit: Any, world: InspectorWorld) -> None:
    visitor = await visit(None)
    visitor.allowed = ("status of 401",)
    await visitor.page.goto("/login")
    await visitor.page.get_by_label("Token").fill("wrong")
    await visitor.page.keyboard.press("Enter")
    await visitor.page.get_by_role("alert").wait_for()
    await visitor.log_in(world.token("viewer"))
    await visitor.page.get_by_role("heading", name="Overview").wait_for()
    assert visitor.hosts == {world.url}


def test_both_routers_serve(world: InspectorWorld) -> None:
    assert sum(world.providers(4).values()) == 4
