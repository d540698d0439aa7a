"""Killed at every await point of a reconcile, and started again: the same world as without the kill.

A dry run counts the points at which a reconcile waits for something outside. Then each of them is played: the
call takes effect, its answer never arrives, the process is gone, and a new one finds what there is. That no
await of the code is missing among these points is a test of its own.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beamline_operator.core import reconciler

WORKLOAD = {"image": "x:1"}


class Tripwire:
    """Counts calls through its proxies; at the chosen one time stands still for whoever called."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.at: int | None = None
        self.reached = asyncio.Event()

    def proxy(self, target: Any) -> Any:
        return _Proxy(target, self)

    async def pass_through(self, name: str) -> None:
        self.seen.append(name)
        if len(self.seen) == self.at:
            self.reached.set()
            await asyncio.Event().wait()

    def arm(self, at: int | None) -> None:
        self.seen.clear()
        self.at = at
        self.reached.clear()


class _Proxy:
    def __init__(self, target: Any, wire: Tripwire) -> None:
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_wire", wire)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            answer = await found(*args, **kwargs)
            await self._wire.pass_through(f"{type(self._target).__name__}.{name}")
            return answer

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target, name, value)


def created(world: Any) -> None:
    world.extension("guard", workload=WORKLOAD)
    world.policy("guard")


def kept(world: Any) -> None:
    world.extension("guard", workload=WORKLOAD, deletionPolicy="Retain", suspend=True)


def edited(world: Any) -> None:
    world.extension("guard", workload={**WORKLOAD, "replicas": 3}, timeoutMs=77)


def without_workload(world: Any) -> None:
    world.extension("guard")


def deleted(world: Any, kind: str = "Extension") -> None:
    world.store.delete(next(s.key for s in world.store.list(kind)))


SCENARIOS: dict[str, tuple[Callable[[Any], None], ...]] = {
    "created": (created,),
    "edited": (created, edited),
    "relieved of its workload": (created, without_workload),
    "deleted": (created, deleted),
    "deleted, its row and workload kept": (created, kept, deleted),
}


async def play(
    make: Callable[[], Any],
    steps: tuple[Callable[[Any], None], ...],
    at: int | None,
    meanwhile: Callable[[Any], None] = lambda world: None,
) -> tuple[Any, list[str]]:
    """A world after ``steps``, killed at the ``at``-th point of the last one; and the points of that step.
    ``meanwhile`` happens before the next process starts.
    """
    world = make()
    wire = Tripwire()
    for name in ("store", "deployments", "hints", "registry"):
        setattr(world, name, wire.proxy(getattr(world, name)))
    await world.start()
    for step in steps[:-1]:
        step(world)
        await world.settle()
    wire.arm(at)
    steps[-1](world)
    settling = asyncio.create_task(world.settle())
    reached = asyncio.create_task(wire.reached.wait())
    await asyncio.wait({settling, reached}, return_when=asyncio.FIRST_COMPLETED)
    points = list(wire.seen)
    batch = world.reconciler.batcher._task
    for task in filter(None, (settling, reached, batch)):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if at is not None:
        wire.arm(None)
        meanwhile(world)
        world.epoch = await world.registry.acquire_epoch("next")
        world.restart()
        await world.controller.sweep()
        await world.settle()
        await world.advance(10)
    return world, points


async def picture(world: Any) -> dict[str, Any]:
    rows = {name: (row.uid != "", row.generation) for name, row in (await world.rows()).items()}
    objects = {
        str(stored.key): (_still(stored.status), stored.metadata.finalizers)
        for kind in ("Extension", "RoutingPolicy")
        for stored in world.store.list(kind)
    }
    running = {key: request.replicas for key, request in world.deployments.running.items()}
    return {"rows": rows, "objects": objects, "running": running, "audit": sorted(await world.audit())}


def _still(status: Any) -> dict[str, Any]:
    """Without what follows from the uid and from the order of the first writes."""
    return {name: value for name, value in status.items() if name not in {"workloadHash", "revision"}}


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_kill_at_any_point_leaves_no_trace(scenario: str, worlds: Callable[[], Any]) -> None:
    steps = SCENARIOS[scenario]
    undisturbed, points = await play(worlds, steps, None)
    expected = await picture(undisturbed)
    assert len(points) >= 4, points
    for at, point in enumerate(points, start=1):
        world, _ = await play(worlds, steps, at)
        assert await picture(world) == expected, f"killed after {point}, the {at}. of {points}"
        for kind in ("Extension", "RoutingPolicy"):
            for stored in world.store.list(kind):
                if "workloadHash" in stored.status:
                    request = world.deployments.running[stored.metadata.namespace, stored.metadata.name]
                    assert stored.status["workloadHash"] == request.hash


async def test_what_is_deleted_while_nobody_runs_leaves_no_row_behind(worlds: Callable[[], Any]) -> None:
    _, points = await play(worlds, SCENARIOS["created"], None)
    for at, point in enumerate(points, start=1):
        world, _ = await play(worlds, SCENARIOS["created"], at, lambda world: deleted(world, "RoutingPolicy"))
        assert set(await world.rows()) == {"guard"}, f"killed after {point}, the {at}. of {len(points)}"
        assert len(world.store.list("RoutingPolicy")) == 0


CORE = Path(reconciler.__file__).parent
PASS = ("reconciler", "gather", "act", "batcher")
"""The modules in which a reconcile waits."""
PORTS = {"_store", "_deployments", "_registry", "_hints"}
WITHIN = {"asyncio.sleep", "asyncio.wait", "future"}
"""Waits for nothing outside: what is under way then is one of the calls above."""


def awaited() -> Iterator[tuple[str, str]]:
    """(file and line, what is awaited) for each await of a reconcile."""
    for module in PASS:
        for node in ast.walk(ast.parse((CORE / f"{module}.py").read_text())):
            if isinstance(node, ast.Await):
                what = node.value.func if isinstance(node.value, ast.Call) else node.value
                yield f"{module}.py:{node.lineno}", ast.unparse(what).removeprefix("self.")


async def test_every_await_of_a_reconcile_is_a_point_at_which_it_is_killed(
    worlds: Callable[[], Any],
) -> None:
    hooked = set()
    for steps in SCENARIOS.values():
        _, points = await play(worlds, steps, None)
        hooked |= {point.partition(".")[2] for point in points}
    own = {
        node.name
        for module in PASS
        for node in ast.walk(ast.parse((CORE / f"{module}.py").read_text()))
        if isinstance(node, ast.AsyncFunctionDef)
    }
    for where, what in awaited():
        owner, _, method = what.rpartition(".")
        if owner in PORTS:
            assert method in hooked, f"{where} waits for {what}, and no scenario is killed there"
        else:
            assert method in own or what in WITHIN, f"{where} waits for {what}, which no tripwire sees"
