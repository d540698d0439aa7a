"""The catalogue follows the registry, shares reads, and pages that stay stable."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from beamline_admin.catalogue import Catalogue, page_of
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.memory import MemoryRegistry
from beamline_registry.port import Delta, RegistryUnavailableError, Remove, Upsert


def extension(name: str, generation: int = 1) -> ExtensionRecord:
    return ExtensionRecord(
        name, "pre", f"beamline.ext.pre.{name}.v1", "default", name, f"u-{name}", generation
    )


async def test_a_view_is_the_registry_as_it_is_now() -> None:
    registry = MemoryRegistry()
    epoch = await registry.acquire_epoch("test")
    catalogue = Catalogue(registry)
    assert (await catalogue.view()).revision == 0
    policy = PolicyRecord("p", "default", "p", "u-p", 1, {"steps": []})
    await registry.write(
        [Upsert(extension("b"), "t"), Upsert(extension("a"), "t"), Upsert(policy, "t")], epoch=epoch
    )
    first = await catalogue.view()
    assert (list(first.extensions), list(first.policies)) == (["a", "b"], ["p"])
    assert await catalogue.view() is first, "nothing new: nothing is built"
    newer = replace(extension("b", 2), retry=3)
    await registry.write([Upsert(newer, "t"), Remove("Extension", "a", "u-a", 1, "t")], epoch=epoch)
    second = await catalogue.view()
    assert list(second.extensions) == ["b"]
    assert second.extensions["b"].retry == 3
    assert list(first.extensions) == ["a", "b"], "a view that somebody holds does not change"
    await registry.write([Remove("RoutingPolicy", "p", "u-p", 1, "t")], epoch=epoch)
    assert not (await catalogue.view()).policies


class Slow:
    """A registry whose reads end when told to."""

    def __init__(self) -> None:
        self.reads = 0
        self.go = asyncio.Event()
        self.fault: RegistryUnavailableError | None = None

    async def read(self, since: int) -> Delta:
        self.reads += 1
        answer = Delta(self.reads, full=True)
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        return answer


async def test_looks_that_wait_together_share_one_read_but_never_one_that_began_before_them() -> None:
    registry = Slow()
    catalogue = Catalogue(registry)
    early = asyncio.create_task(catalogue.view())
    await asyncio.sleep(0)
    late = [asyncio.create_task(catalogue.view()) for _ in range(10)]
    await asyncio.sleep(0)
    registry.go.set()
    assert (await early).revision == 1
    assert {view.revision for view in await asyncio.gather(*late)} == {2}
    assert registry.reads == 2


async def test_a_failed_read_is_shared_too_and_the_next_look_tries_again() -> None:
    registry = Slow()
    registry.fault = RegistryUnavailableError("away")
    catalogue = Catalogue(registry)
    looks = [asyncio.create_task(catalogue.view()) for _ in range(10)]
    await asyncio.sleep(0)
    registry.go.set()
    found = await asyncio.gather(*looks, return_exceptions=True)
    assert all(isinstance(each, RegistryUnavailableError) for each in found)
    assert registry.reads == 2, "the first look's, and one for all that came while it ran"
    registry.fault = None
    assert (await catalogue.view()).revision == 3


def test_pages_neither_repeat_nor_hide_a_row_while_others_come_and_go() -> None:
    rows = {name: extension(name) for name in "bdfhj"}
    seen: list[str] = []
    after = ""
    for change in ({"a": extension("a"), "g": extension("g")}, {"c": extension("c")}, {}):
        page = page_of(rows, after=after, limit=2)
        seen += [row.id for row in page.items]
        after = page.next or after
        rows = dict(sorted({**rows, **change}.items()))
        rows.pop(after, None)
    assert seen == ["b", "d", "f", "g", "h", "j"]


@pytest.mark.parametrize(
    ("limit", "after", "ids", "following"),
    [
        pytest.param(3, "", ["a", "b", "c"], None, id="exactly the rest: no further page"),
        pytest.param(2, "", ["a", "b"], "b", id="one is left"),
        pytest.param(2, "b", ["c"], None, id="the last page"),
        pytest.param(2, "zz", [], None, id="behind the end"),
    ],
)
def test_the_next_page_is_named_only_where_there_is_one(
    limit: int, after: str, ids: list[str], following: str | None
) -> None:
    page = page_of({name: extension(name) for name in "abc"}, after=after, limit=limit)
    assert ([row.id for row in page.items], page.next) == (ids, following)
