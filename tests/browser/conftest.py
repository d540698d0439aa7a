"""The inspector in a real Chromium, in front of real processes.

One browser and one world serve all tests here: they run on one worker, on one event loop. A page is opened
with ``visit``; console errors, uncaught errors, violations of the Content-Security-Policy and requests to
another host fail the test that opened it. Without a Chromium the suite is skipped with a line that says how
to get one, and fails where CI is set. Whoever changes something in the world puts it back.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from harness.chromium import NoChromiumError, Visitor, chromium, find_chromium
from harness.inspector_world import InspectorWorld, inspector_world

Visit = Callable[..., Awaitable[Visitor]]


def pytest_itemcollected(item: pytest.Item) -> None:
    """All on one worker, and on one loop, which is where the browser lives; and outside the parallel part,
    because Chromium drops what it loads (ERR_NETWORK_CHANGED) when another test adds a network interface.
    """
    item.add_marker(pytest.mark.serial)
    item.add_marker(pytest.mark.xdist_group("browser"))
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where the browser is; skips without one."""
    try:
        return find_chromium()
    except NoChromiumError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def world(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InspectorWorld]:
    """Everything behind the inspector. It starts once."""
    with inspector_world(tmp_path_factory.mktemp("inspector")) as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium_path: str) -> AsyncIterator[Browser]:
    """The one browser."""
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, world: InspectorWorld) -> AsyncIterator[Visit]:
    """Opens the inspector for somebody: ``await visit("viewer", tenants="acme", dark=True, phone=True)``;
    with role None nobody is logged in. At the end, what went wrong in any page fails the test.
    """
    visitors: list[Visitor] = []

    async def open_for(role: str | None = "admin", *, tenants: Any = "*", **how: bool) -> Visitor:
        visitor = await Visitor.open(browser, world.url, **how)
        visitors.append(visitor)
        if role is not None:
            await visitor.enter(world.token(role, tenants))
        return visitor

    yield open_for
    faults = [fault for visitor in visitors for fault in await visitor.close()]
    assert not faults, faults
