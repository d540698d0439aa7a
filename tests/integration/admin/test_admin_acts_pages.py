"""Canaries from a page, and what an act meets when routers or objects are away, without a browser."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from beamline_admin.app import application
from beamline_admin.inspector.pages import acts
from beamline_admin.objects.memory import MemoryObjects
from beamline_contract.names import GROUP
from beamline_contract.objects import ObjectKey
from beamline_contract.projection import ExtensionRecord
from beamline_registry.memory import MemoryRegistry
from beamline_registry.port import Upsert

TOKEN = "the-token-of-these-tests"
SPEC = {"type": "provider", "versionOf": "mock", "version": "v2", "canary": {}}
KEY = ObjectKey("Extension", "default", "mock-next")


class World:
    """An application in front of a canary in memory, and a person who is logged in."""

    def __init__(self, status: dict[str, Any] | None) -> None:
        self.registry = MemoryRegistry()
        document: dict[str, Any] = {"kind": "Extension", "metadata": {"name": "mock-next"}, "spec": SPEC}
        if status is not None:
            document["status"] = {"canary": status}
        self.objects = MemoryObjects([document])
        self.app = application(self.registry, self.registry, TOKEN, objects=self.objects)

    async def __aenter__(self) -> World:
        epoch = await self.registry.acquire_epoch("tests")
        record = ExtensionRecord(
            "mock_next", "provider", "beamline.provider.mock.v2", "default", "mock-next", "u", 1
        )
        await self.registry.write([Upsert(record, "ada")], epoch=epoch)
        transport = httpx2.ASGITransport(self.app, client=("127.0.0.1", 40_000))
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081", timeout=30.0)
        await self.client.post("/login", content=f"token={TOKEN}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def word(self) -> str:
        found = re.search(
            r'name="beamline-page" content="([0-9a-f]+)"', (await self.client.get("/audit")).text
        )
        assert found is not None
        return found.group(1)


@pytest.mark.parametrize(("act", "after"), [("promote", "100 %"), ("abort", "0 %")])
async def test_a_canary_is_promoted_or_aborted_behind_what_it_changes(
    act: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "WAIT_S", 0.1)
    async with World({"state": "Progressing", "weight": 25, "step": 2}) as world:
        page = (await world.client.get(f"/extensions/mock_next/{act}")).text
        assert "25 % (Progressing)" in page
        assert f"<ins><code>{after}</code></ins>" in page
        assert "annotations" not in world.objects._held[KEY].metadata, "asking changes nothing"
        form = {"word": await world.word(), "generation": "1"}
        answer = await world.client.post(f"/extensions/mock_next/{act}", data=form)
        assert answer.status_code == 200, answer.text
        assert f"{GROUP}/{act}" in world.objects._held[KEY].metadata["annotations"]


async def test_an_extension_without_a_canary_has_nothing_to_promote() -> None:
    async with World(None) as world:
        answer = await world.client.get("/extensions/mock_next/promote")
    assert (answer.status_code, "has no canary" in answer.text) == (400, True)


async def test_breakers_can_not_be_isolated_where_nobody_can_ask_the_routers() -> None:
    async with World(None) as world:
        answer = await world.client.get("/extensions/mock_next/isolate")
    assert (answer.status_code, "set NATS_URL" in answer.text) == (503, True)


@pytest.mark.parametrize("path", ["/extensions/nobody/disable", "/policies/nobody/weights"])
async def test_what_is_not_there_is_not_found(path: str) -> None:
    async with World(None) as world:
        assert (await world.client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [("word=" + "x" * 5000, 413), ("&".join(f"f{number}=1" for number in range(300)), 400)],
    ids=["too large", "too many fields"],
)
async def test_a_form_out_of_bounds_is_refused(body: str, status: int) -> None:
    async with World(None) as world:
        answer = await world.client.post("/extensions/mock_next/disable", content=body)
    assert answer.status_code == status


@pytest.mark.parametrize(
    "path", ["/extensions/mock_next", "/requests", "/playground", "/extensions", "/routers"]
)
async def test_a_page_is_there_also_where_nobody_can_ask_the_routers(path: str) -> None:
    async with World({"state": "Progressing", "weight": 25, "step": 2}) as world:
        answer = await world.client.get(path)
    assert answer.status_code == 200, answer.text
    assert ("/extensions/mock_next/promote" in answer.text) == (path == "/extensions/mock_next")
