"""A real Chromium, driven by Playwright, that tells what a page did wrong.

The browser is the system's: BEAMLINE_CHROMIUM, else what PATH has; Playwright's own download is never used.
Each page that is opened here is watched. Console errors (Chromium reports violations of the
Content-Security-Policy among them), uncaught errors and requests to any other origin than the page's are kept
in ``faults``, and the fixture that opened the page fails the test on them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

ROOT: Final = Path(__file__).resolve().parents[2]
IMAGES: Final = ROOT / "docs" / "images"
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP: Final = (1280, 800)
PHONE: Final = (390, 844)
WCAG: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_HERE: Final = frozenset({"data", "blob", "about"})
_REPORT_VIOLATIONS: Final = """
document.addEventListener('securitypolicyviolation', (event) => {
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


class NoChromiumError(Exception):
    """No browser here; the message says how to get one."""


def find_chromium() -> str:
    """The browser's path. Raises :class:`NoChromiumError`."""
    if (chosen := os.environ.get("BEAMLINE_CHROMIUM")) is not None:
        if shutil.which(chosen) is None:
            raise NoChromiumError(f"BEAMLINE_CHROMIUM is {chosen!r}, which can't be run")
        return chosen
    for name in NAMES:
        if (found := shutil.which(name)) is not None:
            return found
    raise NoChromiumError(
        "no Chromium is on PATH: install it (`make test-tools` on Debian), or name it in BEAMLINE_CHROMIUM"
    )


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """One running browser. No name but this machine's resolves in it. Raises :class:`NoChromiumError`."""
    path = find_chromium()
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-gpu"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's sandbox refuses to work for root
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


class Visitor:
    """A person with a browser: one context of their own, logged in as ``role`` or not at all."""

    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self.context = context
        self.page = page
        self.url = url
        self.faults: list[str] = []
        self.hosts: set[str] = set()
        self.allowed: tuple[str, ...] = ()
        """Parts of console errors that the test expects: Chromium tells of every answer of 400 or more."""

    @classmethod
    async def open(
        cls, browser: Browser, url: str, *, dark: bool = False, phone: bool = False, scripts: bool = True
    ) -> Visitor:
        """A fresh context. ``url`` is where the inspector is; relative addresses count from there."""
        width, height = PHONE if phone else DESKTOP
        context = await browser.new_context(
            base_url=url,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=phone,
            java_script_enabled=scripts,
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
        )
        context.set_default_timeout(15_000)
        if scripts:
            await context.add_init_script(_REPORT_VIOLATIONS)
        visitor = cls(context, await context.new_page(), url)
        context.on("console", visitor._said)
        context.on("weberror", lambda error: visitor.faults.append(f"uncaught: {error.error}"))
        context.on("request", visitor._asked)
        context.on("dialog", visitor._dialog)
        return visitor

    async def log_in(self, token: str) -> None:
        """By the form, as a person does."""
        await self.page.goto("/login")
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.wait_for_url(lambda url: urlsplit(url).path == "/")

    async def enter(self, token: str) -> None:
        """Logs in without opening a page."""
        answer = await self.context.request.post("/login", form={"token": token}, max_redirects=0)
        assert answer.status == 303, await answer.text()

    async def word(self) -> str:
        """What a page of this session shows when it asks for a change, read from such a page."""
        text = await (await self.context.request.get("/playground")).text()
        found = re.search(r'name="beamline-page" content="([0-9a-f]+)"', text)
        assert found is not None, text
        return found.group(1)

    async def close(self) -> list[str]:
        """Closes the context; what went wrong in it, without what the test said it expects."""
        await self.context.close()
        return [fault for fault in self.faults if not any(part in fault for part in self.allowed)]

    async def accessible(self) -> None:
        """Fails on what axe finds, WCAG 2.2 AA and its best practices."""
        options = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": WCAG}}
        found = await Axe().run(self.page, options=options)
        assert found.violations_count == 0, found.generate_report()

    async def fits(self) -> None:
        """Fails where the page is wider than its window, so that a person would have to scroll sideways."""
        wide, there = await self.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= there, f"the page is {wide} px wide, its window {there} px"

    async def picture(self, name: str, *, whole: bool = False) -> None:
        """A screenshot for the docs, docs/images/NAME.png; only with BEAMLINE_SCREENSHOTS=1."""
        if os.environ.get("BEAMLINE_SCREENSHOTS") == "1":
            IMAGES.mkdir(parents=True, exist_ok=True)
            await self.page.screenshot(path=IMAGES / f"{name}.png", full_page=whole, animations="disabled")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(f"console: {message.text} ({message.location.get('url')})")

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in _HERE:
            self.hosts.add(f"{address.scheme}://{address.netloc}")
            if f"{address.scheme}://{address.netloc}" != self.url:
                self.faults.append(f"a request to another host: {request.url}")

    async def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"a dialog of the browser: {dialog.type} {dialog.message!r}")
        await dialog.dismiss()
