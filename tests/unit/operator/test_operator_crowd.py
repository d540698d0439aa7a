"""Thousands of objects at once: what goes first, what waits for the routers, what is said once for many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from beamline_contract.names import FINALIZER
from beamline_contract.objects import ObjectKey
from beamline_operator.core.controller import CROWD, DESCRIBERS
from beamline_operator.core.crowd import PER_SECOND, ROOM, Crowd
from beamline_operator.core.ledger import Ledger
from beamline_operator.core.queue import SHARE, WorkQueue
from beamline_operator.core.view import Row
from beamline_operator.edges.kube_store import KubeStore
from beamline_operator.edges.nats_hints import HINT_EVERY_S, NatsHints
from beamline_operator.fakes import ManualClock
from beamline_sdk.link import LinkSettings


def key(name: str) -> ObjectKey:
    return ObjectKey("Extension", "default", name)


async def order(queue: WorkQueue) -> list[str]:
    found = []
    while len(queue):
        taken = await queue.get()
        found.append(taken.name)
        queue.done(taken)
    return found


async def test_what_is_new_goes_before_what_is_only_told_but_never_keeps_it_out() -> None:
    queue = WorkQueue(ManualClock())
    for number in range(2):
        queue.add(key(f"told-{number}"), first=False)
    for number in range(2 * SHARE):
        queue.add(key(f"new-{number}"))
    found = await order(queue)
    assert found[: SHARE - 1] == [f"new-{number}" for number in range(SHARE - 1)]
    assert found[SHARE - 1] == "told-0"
    assert sorted(found) == sorted({*found}), "each once"


async def test_a_key_that_waits_moves_up_when_it_changes() -> None:
    queue = WorkQueue(ManualClock())
    for name in ("a", "b", "c"):
        queue.add(key(name), first=False)
    queue.add(key("c"))
    assert await order(queue) == ["c", "a", "b"]


async def test_a_key_that_failed_waits_a_second_whatever_wakes_it() -> None:
    clock = ManualClock()
    queue = WorkQueue(clock, jitter=lambda: 0.0)
    queue.add(key("a"))
    taken = await queue.get()
    queue.retry(taken)
    queue.done(taken)
    queue.add(key("a"))
    clock.advance(0.9)
    assert len(queue) == 0
    clock.advance(0.2)
    assert await order(queue) == ["a"]


async def test_a_key_that_was_woken_while_it_failed_waits_as_well() -> None:
    clock = ManualClock()
    queue = WorkQueue(clock, jitter=lambda: 0.0)
    for _ in range(3):  # two failures before: it would come back after three seconds
        queue.add(key("a"))
        clock.advance(5)
        taken = await queue.get()
        queue.retry(taken)
        if queue.failures(taken) == 3:
            queue.add(taken)
            queue.retry(taken)
        queue.done(taken)
    assert len(queue) == 0
    clock.advance(0.9)
    assert len(queue) == 0
    clock.advance(0.2)
    assert await order(queue) == ["a"], "a second after the failure, for something happened meanwhile"


def test_the_ledger_finds_the_rows_of_a_span_of_revisions() -> None:
    ledger, record = Ledger(), object()
    for name, revision in (("a", 1), ("b", 2), ("c", 2), ("d", 9)):
        ledger.put(key(name), Row(record, revision))  # type: ignore[arg-type]  # the record has no part in it
    assert {found.name for found in ledger.changed_between(1, 2)} == {"b", "c"}
    assert {found.name for found in ledger.changed_between(0, 10_000)} == {"a", "b", "c", "d"}
    ledger.put(key("b"), Row(record, 10))  # type: ignore[arg-type]
    ledger.forget(key("c"))
    assert ledger.changed_between(1, 2) == set()
    assert {found.name for found in ledger.changed_between(9, 10)} == {"b"}


@pytest.fixture
async def patient(world: Any) -> AsyncIterator[Any]:
    """A world whose operator waits for its routers."""
    made = await type(world)(patience_s=0.5).start()
    yield made
    made.controller.queue.close()


async def test_one_write_of_status_tells_what_would_take_three(patient: Any) -> None:
    world = patient
    world.report("r1", 0)
    world.report("r2", 0)
    guard = world.extension()
    await world.settle()
    assert len(world.store.status_writes) == 1, "first sight, at once"
    world.report("r1")
    world.report("r2")
    await world.settle()
    assert len(world.store.status_writes) == 2
    assert world.message(guard, "Programmed") == "2/2 routers at generation 1."
    assert [event.reason.value for _, event in world.store.events] == ["Programmed"]


async def test_in_a_crowd_all_are_served_before_any_is_described(world: Any) -> None:
    for number in range(3 * CROWD):
        world.extension(f"many-{number}")
    while len(await world.rows()) < 2 * CROWD:
        await world.controller.work_on(await world.controller.queue.get())
    assert len(world.store.status_writes) <= 2 * CROWD / 4, "rows come first"
    await world.settle()
    for number in range(3 * CROWD):
        stored = world.store.get(key(f"many-{number}"))
        assert stored.metadata.finalizers == (FINALIZER,)
        assert world.verdict(stored.key, "Synced") == ("True", "Synced")


async def test_in_a_stream_each_object_costs_one_finalizer_one_status_and_one_event(patient: Any) -> None:
    """Each is served before the next comes, so that few are ever due; still they are a crowd."""
    world, many = patient, 4 * int(ROOM)
    world.report("r1", 0)
    for number in range(many):
        world.extension(f"stream-{number}")
        await world.settle()
        world.clock.advance(0.001)
    for number in range(int(ROOM) + 1, many):
        assert world.store.get(key(f"stream-{number}")).status == {}, "served, and not described yet"
    assert len(await world.rows()) == many
    world.report("r1")
    await world.advance(0.6)
    world.report("r1")
    await world.advance(0.6)
    assert len(world.store.finalizer_writes) == many
    assert len(world.store.events) == many
    assert many <= len(world.store.status_writes) <= many + ROOM, "first sight of those before the crowd"
    assert world.message(key(f"stream-{many - 1}"), "Programmed") == "1/1 routers at generation 1."


@pytest.mark.parametrize(
    ("per_second", "seconds", "crowd"),
    [
        (PER_SECOND * 0.9, 60, False),
        (1_000.0, 0.9 * ROOM / 1_000, False),
        (2.5 * PER_SECOND, 10.0, True),
    ],
    ids=["people at work", "a chart of thirty objects", "a hundred a second"],
)
def test_a_crowd_is_what_comes_faster_than_it_leaks_away(
    per_second: float, seconds: float, crowd: bool
) -> None:
    arrivals = Crowd()
    for number in range(int(per_second * seconds)):
        arrivals.arrive(number / per_second)
    assert arrivals.is_here(seconds) is crowd
    assert not arrivals.is_here(seconds + ROOM / PER_SECOND), "soon after its last, it is over"


async def test_while_a_crowd_arrives_few_workers_describe_and_all_serve() -> None:
    queue = WorkQueue(ManualClock())
    queue.later_at_once = lambda: 2
    for number in range(4):
        queue.add(key(f"told-{number}"), first=False)
    taken = [await queue.get(), await queue.get()]
    third = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not third.done(), "two are described at a time"
    queue.add(key("new"))
    assert (await third).name == "new", "and what is new is served beside them"
    fourth = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not fourth.done()
    queue.done(taken[0])
    assert (await fourth).name == "told-2"
    assert DESCRIBERS >= 1, "or nothing would ever be described"


async def test_a_router_that_lags_is_named_when_patience_ends(patient: Any) -> None:
    world = patient
    world.report("r1", 0)
    world.report("r2", 0)
    guard = world.extension()
    await world.settle()
    world.report("r1")
    await world.settle()
    assert len(world.store.status_writes) == 1
    await world.advance(0.6)
    assert world.message(guard, "Programmed") == "1/2 routers at generation 1."


@pytest.mark.parametrize(("objects", "told"), [(10, 3), (1_000, 1)], ids=["few objects", "a thousand"])
async def test_hints_are_folded_where_tables_are_large_and_the_first_is_told_at_once(
    objects: int, told: int
) -> None:
    seconds = iter(number * 0.01 for number in range(100))
    hints = NatsHints(LinkSettings("nats://unused", "test"), clock=lambda: next(seconds))
    sent: list[str] = []

    async def publish(subject: str, payload: bytes) -> None:
        sent.append(payload.decode())

    hints._publish = publish  # type: ignore[method-assign]  # the connection is what is left out
    hints.objects = lambda: objects
    for revision in (1, 2, 3):
        await hints.changed(revision)
    assert len(sent) == told
    await hints.stop()
    await asyncio.sleep(0)
    assert '"revision":3' in sent[-1], "the last one is always told"
    assert HINT_EVERY_S <= 1


class EchoingApi:
    """The watch is quicker than the answer; ``meanwhile`` is what somebody else wrote just before."""

    def __init__(self) -> None:
        self.store: KubeStore
        self.meanwhile: dict[str, Any] | None = None

    async def request(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        generation = 1
        if self.meanwhile is not None:
            self.store.observe(self.meanwhile)
            generation = self.meanwhile["metadata"]["generation"]
        answer = document(version=9, generation=generation, finalizers=[FINALIZER])
        self.store.observe(answer)
        return answer


def document(version: int, generation: int = 1, finalizers: list[str] | None = None) -> dict[str, Any]:
    meta = {"name": "guard", "namespace": "default", "uid": "u", "resourceVersion": str(version)}
    return {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "Extension",
        "metadata": {**meta, "generation": generation, "finalizers": finalizers or []},
        "spec": {"type": "provider", "timeoutMs": generation},
    }


@pytest.mark.parametrize(
    ("meanwhile", "woken"), [(None, 0), (document(5, 2), 1)], ids=["only our own echo", "an edit in between"]
)
async def test_the_echo_of_a_write_wakes_nobody_and_an_edit_in_between_does(
    meanwhile: dict[str, Any] | None, woken: int
) -> None:
    api = EchoingApi()
    store = KubeStore(api)  # type: ignore[arg-type]
    api.store, api.meanwhile = store, meanwhile
    store.observe(document(1))
    heard: list[ObjectKey] = []
    store.on_change = heard.append
    await store.set_finalizer(key("guard"), True)
    assert len(heard) == woken
    stored = store.get(key("guard"))
    assert stored is not None
    assert stored.metadata.finalizers == (FINALIZER,)
