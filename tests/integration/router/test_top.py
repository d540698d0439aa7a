"""`beamline top` beside two routers under traffic: for programs, as plain text, and on a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from .conftest import Served, Site, eventually, open_site, running

TOP = (sys.executable, "-m", "beamline_cli", "top")


@pytest.fixture
async def site(own_nats: Any, database_url: str) -> AsyncIterator[Site]:
    """With a NATS of this test alone: every router on it answers."""
    async with open_site(own_nats.url, database_url) as opened:
        yield opened


@pytest.fixture
async def busy(site: Site) -> AsyncIterator[tuple[Served, Served]]:
    """Two routers that are asked all the time."""
    async with AsyncExitStack() as stack:
        routers = [
            await stack.enter_async_context(running(site.settings(instance=name)))
            for name in ("router-a", "router-b")
        ]

        async def ask() -> None:
            while True:
                for served in routers:
                    await served.route({"prompt": "Hi"})
                await asyncio.sleep(0.02)

        asking = asyncio.create_task(ask())
        try:
            yield routers[0], routers[1]
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking


async def beamline(site: Site, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *TOP, "--nats-url", site.nats_url, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_once_as_json_has_every_router_and_every_extension_with_what_happened(
    site: Site, busy: tuple[Served, Served]
) -> None:
    assert (await busy[0].route({"prompt": "Hi"})).status_code == 200
    code, out, err = await beamline(site, "--once", "--output", "json", "--sort", "name")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [row["router"] for row in found["routers"]] == ["router-a", "router-b"]
    assert all(
        row["requests_per_second"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in found["routers"]
    )
    assert [(row["extension"], row["type"]) for row in found["extensions"]] == [
        ("echo", "provider"), ("guard", "validator"), ("lower", "pre"), ("mask", "post"),
    ]  # fmt: skip
    assert all(
        row["requests_per_second"] > 0 and row["breaker"] == "closed" and row["error_share"] is not None
        for row in found["extensions"]
    )
    code, out, _ = await beamline(site, "--once", "--router", "router-b", "-o", "json")
    assert (code, [row["router"] for row in json.loads(out)["routers"]]) == (0, ["router-b"])


async def test_without_a_terminal_it_prints_plain_tables_until_interrupted_and_ends_well(
    site: Site, busy: tuple[Served, Served], tmp_path: Path
) -> None:
    del busy
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(  # noqa: ASYNC220 -- it returns at once
            [*TOP, "--nats-url", site.nats_url, "--interval", "0.2"], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        await eventually(lambda: (tmp_path / "out").read_text().count("ROUTER") >= 2, "two pictures")
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.wait()
    text = (tmp_path / "out").read_text()
    assert "\x1b" not in text
    assert "Traceback" not in text
    assert "echo" in text


async def test_on_a_terminal_it_draws_in_place_and_gives_the_screen_back(
    site: Site, busy: tuple[Served, Served]
) -> None:
    del busy
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(  # noqa: ASYNC220 -- it returns at once
        [*TOP, "--nats-url", site.nats_url, "--interval", "0.2"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    )  # fmt: skip
    os.close(theirs)
    seen = b""

    def read() -> bool:
        nonlocal seen
        with suppress(OSError):  # the other end is closed
            seen += os.read(ours, 65_536)
        return seen.count(b"\x1b[H") >= 3

    try:
        await eventually(lambda: asyncio.to_thread(read), "three pictures")
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            await asyncio.to_thread(read)
        await asyncio.to_thread(read)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0
    assert seen.startswith(b"\x1b[?1049h")
    assert seen.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")
    assert b"router-a" in seen
    assert b"Traceback" not in seen


async def test_without_routers_or_with_a_format_that_makes_no_sense_it_says_so(site: Site) -> None:
    code, out, err = await beamline(site, "--once", "--timeout", "0.5")
    assert (code, out) == (69, "")
    assert "no router answered within 0.5 s" in err
    code, _, err = await beamline(site, "-o", "name")
    assert (code, "-o name is no way to print this" in err) == (2, True)
    code, _, err = await beamline(site, "--sort", "size")
    assert code == 2
