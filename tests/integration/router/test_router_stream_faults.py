"""Streams of providers and readers that nobody has met: cut anywhere, out of order, silent, slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from nats.aio.msg import Msg

from beamline_extensions.mask_sensitive_data.extension import MaskSensitiveData
from beamline_sdk import Config, ExtensionError, ExtensionRequest, Patch, ProviderReply, post, provider

from .conftest import Site, eventually, extension, policy, running
from .openai_world import FILLER, serving_extension
from .test_router_nats_streams import Long, Reader, is_idle

ADDRESS = "jane.doe@example.com"
TEXT = f"{FILLER * 12}write to {ADDRESS} or don't. {FILLER * 12}"
START = TEXT.index(ADDRESS)


@provider(name="cutting")
async def cutting(request: ExtensionRequest, config: Config) -> AsyncGenerator[Any, None]:
    """Says the text in two pieces, cut where it is told."""
    cut = int(request.prompt or "0")
    yield TEXT[:cut]
    yield TEXT[cut:]
    yield ProviderReply("", prompt_tokens=1, completion_tokens=2)


@post(name="blocking", max_match_length=len(ADDRESS))
async def blocking(request: ExtensionRequest, config: Config) -> Patch | None:
    """Objects to the address."""
    if ADDRESS in (request.output or ""):
        raise ExtensionError("VALIDATION_REJECTED", "an address")
    return None


async def asked(site: Site, body: dict[str, Any], **headers: str) -> Reader:
    reader = Reader(site.nc)
    await reader.ask({"stream": True, **body}, **headers)
    await eventually(lambda: reader.ended, "the end")
    await reader.subscription.unsubscribe()
    return reader


async def test_an_address_cut_at_every_byte_is_masked_and_blocked(site: Site) -> None:
    step = {"action": "select_provider", "provider_id": "cutting"}
    ends = [
        ("masked", {"action": "extension_post", "extension_id": "masking"}),
        ("blocked", {"action": "extension_post", "extension_id": "blocking", "failure_mode": "closed"}),
    ]
    await site.put(
        extension("cutting", "provider"),
        extension("masking", "post"),
        extension("blocking", "post"),
        *(policy(name, [step, after]) for name, after in ends),
    )
    async with (
        serving_extension(cutting, site, "beamline.provider.cutting.v1"),
        serving_extension(MaskSensitiveData(), site, "beamline.ext.post.masking.v1"),
        serving_extension(blocking, site, "beamline.ext.post.blocking.v1"),
        running(site.settings()),
    ):
        cuts = range(START, START + len(ADDRESS) + 1)
        masked = [await asked(site, {"policy": "masked", "prompt": str(cut)}) for cut in cuts]
        blocked = [await asked(site, {"policy": "blocked", "prompt": str(cut)}) for cut in cuts]
    assert {"".join(reader.chunks) for reader in masked} == {TEXT.replace(ADDRESS, "[EMAIL]")}
    assert {reader.end["usage"]["total_tokens"] for reader in masked} == {3}
    assert {reader.end["error"]["code"] for reader in blocked} == {"VALIDATION_REJECTED"}
    left = {"".join(reader.chunks) for reader in blocked}
    assert all(TEXT[:START].startswith(text) for text in left)
    assert any(left)


class Raw:
    """A provider spelled out: what it sends to each request is a list of (number, body, end)."""

    def __init__(self, site: Site, script: list[tuple[int, dict[str, Any], bool]]) -> None:
        self.site = site
        self.script = script
        self.told: list[dict[str, Any]] = []

    async def listen(self, subject: str) -> None:
        nc = self.site.nc
        control = nc.new_inbox()

        async def note(message: Msg) -> None:
            self.told.append(orjson.loads(message.data))

        async def serve(message: Msg) -> None:
            for number, body, end in self.script:
                headers = {"Beamline-Stream-Sequence": str(number)}
                if number == 0:
                    headers["Beamline-Stream-Control"] = control
                if end:
                    headers["Beamline-Stream-End"] = "1"
                await nc.publish(message.reply, orjson.dumps(body), headers=headers)

        await nc.subscribe(control, cb=note)
        await nc.subscribe(subject, queue="raw", cb=serve)
        await nc.flush()


OPEN = (0, {}, False)
END = (9, {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, True)


def said(*texts: str, start: int = 1) -> list[tuple[int, dict[str, Any], bool]]:
    return [(number, {"delta": text}, False) for number, text in enumerate(texts, start)]


SCRIPTS: dict[str, tuple[list[tuple[int, dict[str, Any], bool]], str, str | None]] = {
    "a number that comes twice": ([OPEN, *said("a"), *said("a")], "a", "STREAM_INTERRUPTED"),
    "a number that is missing": ([OPEN, *said("a"), *said("b", start=3)], "a", "STREAM_INTERRUPTED"),
    "a number too early": ([OPEN, *said("b", start=2), *said("a")], "instead", None),
    "no opening": (said("a"), "instead", None),
    "silence": ([OPEN], "instead", None),
    "silence after a chunk": ([OPEN, *said("a")], "a", "STREAM_INTERRUPTED"),
    "an end that holds it all": ([OPEN, (1, {"output": "all of it", "usage": {}}, True)], "all of it", None),
    "chunks behind the end": ([OPEN, *said("a"), (2, {"usage": {}}, True), *said("b", start=3)], "a", None),
}


@pytest.mark.parametrize(("script", "text", "code"), SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_what_a_reader_gets_of_a_provider_that_streams(
    site: Site, script: list[tuple[int, dict[str, Any], bool]], text: str, code: str | None
) -> None:
    raw = Raw(site, script)
    await raw.listen("beamline.provider.raw.v1")
    await site.respond(
        site.nc, "other", "beamline.provider.other.v1", lambda _: {"output": "instead", "usage": {}}
    )
    step = {"action": "select_provider", "provider_id": "raw", "retry_on_timeout": True}
    await site.put(
        extension("raw", "provider", timeout_ms=300, retry=0),
        extension("other", "provider"),
        policy("raw", [{**step, "fallback": ["other"]}]),
    )
    async with running(site.settings()):
        reader = await asked(site, {"policy": "raw", "prompt": "Hi"})
        if code is not None:
            await eventually(lambda: {"cancel": True} in raw.told, "the provider is told to stop")
    assert "".join(reader.chunks) == text
    assert reader.end.get("error", {}).get("code") == code
    if code is not None:
        assert reader.end["error"]["details"]["delivered_characters"] == len(text)


async def test_a_reader_that_makes_no_room_holds_its_request_no_longer_than_the_deadline(site: Site) -> None:
    long = Long()
    step = {"action": "select_provider", "provider_id": "long"}
    await site.put(extension("long", "provider", timeout_ms=60_000), policy("long", [step], deadline_ms=600))
    async with (
        serving_extension(long.extension, site, "beamline.provider.long.v1"),
        running(site.settings()) as served,
    ):
        reader = await asked(site, {"policy": "long", "prompt": "100000"}, **{"Beamline-Stream-Window": "4"})
        await asyncio.wait_for(long.closed.wait(), 10)
        await eventually(lambda: is_idle(served), "the request is over")
    assert reader.chunks == ["x"] * 4
    assert reader.end["error"]["code"] == "STREAM_INTERRUPTED"
    assert "deadline" in reader.end["error"]["message"]
    assert reader.end["error"]["details"]["delivered_chunks"] == 4


async def test_readers_can_not_guess_where_others_are_heard(site: Site) -> None:
    long = Long()
    step = {"action": "select_provider", "provider_id": "long"}
    await site.put(extension("long", "provider"), policy("long", [step]))
    async with serving_extension(long.extension, site, "beamline.provider.long.v1"), running(site.settings()):
        readers = [await asked(site, {"policy": "long", "prompt": "1"}) for _ in range(3)]
    tokens = [reader.messages[0][0]["Beamline-Stream-Control"].rpartition(".")[2] for reader in readers]
    assert len(set(tokens)) == 3
    assert min(map(len, tokens)) >= 16
