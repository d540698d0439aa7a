"""A request that nobody waits for ends in the extension that works on it, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from beamline_contract.names import SUBJECT_INVOKE

from .conftest import Site, eventually, extension, policy, running
from .openai_world import USER

TESTS = Path(__file__).parents[2]
ACTIONS = {"pre": "extension_pre", "validator": "extension_validator", "post": "extension_post"}
STEMS = {"pre": "ext.pre", "validator": "ext.validate", "provider": "provider", "post": "ext.post"}


class Hanging:
    """A process of the SDK that hangs in every call."""

    def __init__(self, site: Site, kind: str, folder: Path) -> None:
        self.kind = kind
        self.subject = f"beamline.{STEMS[kind]}.hang.v1"
        self.notes = folder / "notes"
        self.log = folder / "log"
        self._env = {**os.environ, "NATS_URL": site.nats_url, "NATS_SUBJECT": self.subject}

    @asynccontextmanager
    async def started(self, count: int = 1) -> AsyncIterator[Hanging]:
        path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        processes: list[asyncio.subprocess.Process] = []
        with self.log.open("ab") as log:
            processes += [
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "harness.hanging_extension", self.kind, str(self.notes)),
                    env={**self._env, "METRICS_PORT": "0", "PYTHONPATH": path},
                    stderr=log,
                )
                for _ in range(count)
            ]
        try:
            await eventually(lambda: self.log.read_text().count('"extension.ready"') == count, "ready")
            yield self
        finally:
            for process in processes:
                process.kill()
                await process.wait()

    def noted(self, what: str) -> bool:
        return self.notes.exists() and what in self.notes.read_text().splitlines()


async def put(site: Site, hanging: Hanging, *, before: tuple[dict[str, Any], ...] = ()) -> None:
    """A policy in which the hanging extension is one step."""
    own: dict[str, Any] = {"provider_id": "hang"} if hanging.kind == "provider" else {"extension_id": "hang"}
    step = {"action": ACTIONS.get(hanging.kind, "select_provider"), **own}
    asking = {"action": "select_provider", "provider_id": "echo"}
    steps = {
        "provider": [step],
        "post": [asking, step],
    }.get(hanging.kind, [{**step, "group": "checks"} if before else step, *before, asking])
    await site.put(
        extension("hang", hanging.kind, subject=hanging.subject, timeout_ms=60_000),
        policy("hang", steps, deadline_ms=60_000, match={"models": ["hang"]}),
    )


@pytest.mark.parametrize("transport", ["fast", "plain"])
@pytest.mark.parametrize("kind", ["pre", "provider"])
@pytest.mark.parametrize("size", [1, 200_000], ids=["small", "read in pauses"])
async def test_a_client_that_hangs_up_is_noticed_by_the_extension_that_works_for_it(
    site: Site, tmp_path: Path, size: int, kind: str, transport: str
) -> None:
    async with Hanging(site, kind, tmp_path).started(2) as hanging:
        await put(site, hanging)
        async with running(site.settings(transport=transport)) as served:
            body = {"prompt": "x" * size, "policy": "hang"}
            leaving = asyncio.ensure_future(served.route(body, **{"x-request-id": "leaving"}))
            staying = asyncio.ensure_future(served.route(body, **{"x-request-id": "staying"}))
            for name in ("leaving", "staying"):
                await eventually(lambda name=name: hanging.noted(f"begun {name}"), "both are at work")
            leaving.cancel()
            await eventually(lambda: hanging.noted("cancelled leaving"), "the extension was told")
            assert not hanging.noted("cancelled staying")
            staying.cancel()
            await asyncio.gather(leaving, staying, return_exceptions=True)
            await eventually(lambda: hanging.noted("cancelled staying"), "and so was the other")


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "route": ("/v1/route", {"prompt": "x", "model": "hang"}),
    "route-streamed": ("/v1/route", {"prompt": "x", "model": "hang", "stream": True}),
    "chat": ("/v1/chat/completions", {"messages": USER, "model": "hang"}),
    "chat-streamed": ("/v1/chat/completions", {"messages": USER, "model": "hang", "stream": True}),
}


@pytest.mark.parametrize("kind", ["validator", "provider"])
async def test_a_client_that_hangs_up_is_noticed_whichever_way_it_asked(
    site: Site, tmp_path: Path, kind: str
) -> None:
    async with Hanging(site, kind, tmp_path).started() as hanging:
        await put(site, hanging)
        async with running(site.settings()) as served:
            asked = {
                way: asyncio.ensure_future(served.http.post(path, json=body, headers={"x-request-id": way}))
                for way, (path, body) in WAYS.items()
            }
            for way in WAYS:
                await eventually(lambda way=way: hanging.noted(f"begun {way}"), f"{way} is at work")
            for way, task in asked.items():
                task.cancel()
                await eventually(lambda way=way: hanging.noted(f"cancelled {way}"), f"{way} was told")
            await asyncio.gather(*asked.values(), return_exceptions=True)


async def test_a_rejection_ends_the_other_validators_of_its_group_where_they_work(
    site: Site, tmp_path: Path
) -> None:
    async with Hanging(site, "validator", tmp_path).started() as hanging:
        beside = {"action": "extension_validator", "extension_id": "late_guard", "group": "checks"}

        async def reject_once_both_are_at_work(message: Msg) -> None:
            await eventually(lambda: hanging.noted("begun r"), "the other is at work")
            await message.respond(b'{"verdict":"reject","reason":"a card"}')

        subject = "beamline.ext.validate.late_guard.v1"
        await site.nc.subscribe(subject, cb=reject_once_both_are_at_work)
        await site.put(extension("late_guard", "validator", subject=subject, timeout_ms=60_000))
        await put(site, hanging, before=(beside,))
        async with running(site.settings()) as served:
            reply = await served.route({"prompt": "4111", "policy": "hang"}, **{"x-request-id": "r"})
            assert reply.json()["error"]["code"] == "VALIDATION_REJECTED"
            await eventually(lambda: hanging.noted("cancelled r"), "the other validator was told")


async def test_a_reader_of_a_stream_over_nats_that_leaves_before_its_first_chunk_cancels_the_step(
    site: Site, tmp_path: Path
) -> None:
    opened: asyncio.Queue[str] = asyncio.Queue()

    async def note(message: Any) -> None:
        opened.put_nowait(message.headers["Beamline-Stream-Control"])

    async with Hanging(site, "pre", tmp_path).started() as hanging:
        await put(site, hanging)
        async with running(site.settings()):
            inbox = site.nc.new_inbox()
            await site.nc.subscribe(inbox, cb=note)
            body = b'{"prompt":"x","policy":"hang","stream":true}'
            await site.nc.publish(SUBJECT_INVOKE, body, reply=inbox, headers={"Beamline-Request-Id": "r"})
            control = await asyncio.wait_for(opened.get(), 10)
            await eventually(lambda: hanging.noted("begun r"), "the step works")
            await site.nc.publish(control, b'{"cancel":true}')
            await eventually(lambda: hanging.noted("cancelled r"), "it was told")


async def test_a_call_that_waits_for_a_place_is_not_begun_when_nobody_waits_for_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAMLINE_CONCURRENCY", "1")
    async with Hanging(site, "provider", tmp_path).started() as hanging:
        await put(site, hanging)
        async with running(site.settings()) as served:
            ask: Callable[[str], Any] = lambda name: asyncio.ensure_future(  # noqa: E731 -- three of a kind
                served.route({"prompt": "x", "policy": "hang"}, **{"x-request-id": name})
            )
            first = ask("first")
            await eventually(lambda: hanging.noted("begun first"), "the only place is taken")
            second = ask("second")
            await asyncio.sleep(0.1)
            second.cancel()
            await asyncio.sleep(0.1)
            third = ask("third")
            await asyncio.sleep(0.1)
            first.cancel()
            await eventually(lambda: hanging.noted("begun third"), "the next one that is waited for")
            third.cancel()
            await asyncio.gather(first, second, third, return_exceptions=True)
            await eventually(lambda: hanging.noted("cancelled third"), "all are over")
    assert not hanging.noted("begun second")
