"""A blocked event loop is noticed while it is blocked, with what blocks it."""

from __future__ import annotations

import threading

from structlog.testing import capture_logs

from beamline_operator.edges.loop_watch import LoopWatch


async def test_a_blocked_loop_is_logged_with_its_stack() -> None:
    watch = LoopWatch(limit_s=0.02, beat_s=0.01)
    with capture_logs() as logs:
        await watch.start()
        noticed = threading.Event()

        def block_until_noticed() -> None:
            while not watch.blocks and not noticed.wait(0.005):
                pass

        block_until_noticed()
        await watch.stop()
    (blocked,) = [entry for entry in logs if entry["event"] == "loop.blocked"]
    assert any("block_until_noticed" in frame for frame in blocked["frames"])
    assert watch.blocks == 1


async def test_a_loop_that_turns_is_no_news() -> None:
    watch = LoopWatch(limit_s=60.0, beat_s=0.001)
    await watch.start()
    await watch.stop()
    assert watch.blocks == 0
