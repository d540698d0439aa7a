"""What a router's start does not load, and that nobody else misses it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys

import pytest

from beamline_router import collector

SCRIPT = """
import sys
from beamline_contract import lean
lean.load({environment!r})
import beamline_router.app
print(*sorted(name for name in ("rich", "aiohttp") if sys.modules.get(name) is not None))
import aiohttp, rich
"""


BREAKS = """
import structlog
from beamline_router import app

async def run(settings):
    try:
        raise LookupError("a secret")
    except LookupError:
        structlog.get_logger().exception("request.crashed")

app.run = run
raise SystemExit(app.main())
"""


@pytest.mark.parametrize(
    ("environment", "loaded"),
    [
        pytest.param(
            {"NATS_URL": "nats://a:4222"}, "", id="neither rich nor aiohttp, and both can be had later"
        ),
        pytest.param({"NATS_URL": "wss://a:443"}, "aiohttp", id="aiohttp for a WebSocket address"),
        pytest.param({"BEAMLINE_NATS_URL": "nats://b,ws://a"}, "aiohttp", id="aiohttp for one of several"),
    ],
)
def test_a_router_starts_without_what_it_never_uses(environment: dict[str, str], loaded: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(environment=environment)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.strip() == loaded


def test_a_router_logs_of_an_exception_its_type_and_place_alone() -> None:
    environment = {**os.environ, "BEAMLINE_DATABASE_URL": "postgresql://x/y"}
    ran = subprocess.run(
        [sys.executable, "-c", BREAKS],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )
    [line] = map(json.loads, ran.stderr.splitlines())
    assert (line["event"], line["error"], line["component"]) == ("request.crashed", "LookupError", "router")
    assert "in run" in line["at"][-1]


def test_a_router_asks_the_collector_more_rarely_and_only_for_the_young() -> None:
    before = gc.get_threshold()
    try:
        collector.look_rarely()
        assert gc.get_threshold() == (collector.YOUNG, *before[1:])
    finally:
        gc.set_threshold(*before)
