"""Row "inspector": from the start of a navigation until a person sees something, with 5,000 policies.

The admin application with its registry in memory, in this process, and a real Chromium beside it; what the
browser itself says (``PerformanceObserver``, first contentful paint). The baseline is the login page, which
shows nothing of the registry. The rows in the document, after scrolling through the whole list, say whether
the list is virtual.
"""

from __future__ import annotations

import asyncio
import sys
from statistics import median
from typing import Any, Final

from bench.parts import ROOT, Row, spread

sys.path.insert(0, str(ROOT / "tests"))

from harness.chromium import NoChromiumError, Visitor, chromium, find_chromium
from harness.inspector_app import TOKEN, extension, inspector_app, policy

POLICIES: Final = 5_000
GOAL_MS: Final = 1_000.0
GOAL_ROWS: Final = 150
PAGES: Final = ("/login", "/", "/policies", "/policies?q=p49", "/policies/p2500", "/extensions/mock")
PAINTED: Final = """() => new Promise((resolve) => new PerformanceObserver((list) => {
  const paint = list.getEntriesByName('first-contentful-paint')[0];
  if (paint) resolve(paint.startTime);
}).observe({ type: 'paint', buffered: true }))"""


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; ``seconds`` has no meaning here. Without a Chromium the row is left out, and says so."""
    try:
        find_chromium()
    except NoChromiumError as reason:
        return [Row("inspector", "", f"left out: {reason}", None)], {"left_out": str(reason)}
    painted, most_rows = asyncio.run(_measured(rounds))
    rows = [
        Row(
            f"inspector: first paint of {path}, {POLICIES:,} policies, ms",
            "" if path == "/login" else f"<= {GOAL_MS:g}",
            spread(found, ".0f"),
            None if path == "/login" else median(found) <= GOAL_MS,
        )
        for path, found in painted.items()
    ]
    rows.append(
        Row(
            f"inspector: most rows of {POLICIES:,} in the document", f"<= {GOAL_ROWS}",
            spread([float(one) for one in most_rows], ".0f"), max(most_rows) <= GOAL_ROWS,
        )
    )  # fmt: skip
    return rows, {"first_paint_ms": painted, "most_rows": most_rows}


async def _measured(rounds: int) -> tuple[dict[str, list[float]], list[int]]:
    painted: dict[str, list[float]] = {path: [] for path in PAGES}
    most_rows: list[int] = []
    step = {"action": "select_provider", "provider_id": "mock", "fallback": []}
    async with inspector_app() as app, chromium() as browser:
        await app.write(
            extension("mock", "provider"),
            *(policy(f"p{number:04}", step, priority=number) for number in range(POLICIES)),
        )
        for _ in range(rounds):
            visitor = await Visitor.open(browser, app.url)  # a cache of its own: cold
            await visitor.enter(TOKEN)
            for path in PAGES:
                await visitor.page.goto(path)
                painted[path].append(float(await visitor.page.evaluate(PAINTED)))
            most_rows.append(await _scrolled(visitor))
            if faults := await visitor.close():
                raise RuntimeError("; ".join(faults))
    return painted, most_rows


async def _scrolled(visitor: Visitor) -> int:
    """The most rows that were in the document at once while the whole list went by."""
    await visitor.page.goto("/policies")
    most = 0
    for tenth in range(11):
        await visitor.page.evaluate(f"scrollTo(0, document.documentElement.scrollHeight * {tenth} / 10)")
        number = min(POLICIES - 1, POLICIES * tenth // 10)
        await visitor.page.wait_for_selector(f"a[href='/policies/p{number:04}']", state="attached")
        most = max(most, int(await visitor.page.locator("#list tbody:not(.pad) tr").count()))
    return most
