"""Random edits, deletions, outages and restarts: once all is well again, everything is as asked for, and
stays still. On fakes; a seed that fails is played again by its number.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from beamline_contract.objects import BrokenObject, Extension
from beamline_operator.core.canary import OVER
from beamline_operator.core.ports import StoredObject, StoreError
from beamline_operator.core.settings import ReconcileSettings
from beamline_registry.port import RegistryError, RegistryUnavailableError
from beamline_sdk.deployment.port import DeploymentError, Phase

NAMES = ("a", "b", "c", "c-x", "d")
KINDS = ("Extension", "RoutingPolicy")
CANARY = {
    "steps": [{"weight": 10, "pauseSeconds": 5}, {"weight": 50, "pauseSeconds": 5}],
    "gates": {"minSamples": 1},
}
ANNOTATIONS = ("beamline.io/promote", "beamline.io/abort", "beamline.io/reconcile-at")


class Chaos:
    """Plays one sequence on a world."""

    def __init__(self, world: Any, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        world.settings = ReconcileSettings(allowed_images=("ok",), patience_s=self.random.choice([0.0, 0.5]))
        world.restart()

    async def play(self) -> None:
        steps: list[Callable[[], Any]] = [
            *[self.edit] * 6, *[self.remove] * 2, *[self.fault] * 2, *[self.heal] * 2,
            self.route, self.annotate, self.report, self.sicken, self.restart, self.compare, self.wait,
        ]  # fmt: skip
        for _ in range(self.random.randint(10, 50)):
            await self.random.choice(steps)()
            if self.maybe(0.6):
                await self.world.settle()
        await self.heal()
        self.world.deployments.phase.clear()
        for _ in range(2):
            for _ in range(5):
                await self.world.advance(6)
            await self.world.controller.compare()
        await self.world.advance(12)

    def maybe(self, share: float) -> bool:
        return self.random.random() < share

    def place(self) -> dict[str, str]:
        return {"name": self.random.choice(NAMES), "namespace": "other" if self.maybe(0.3) else "default"}

    async def edit(self) -> None:
        place = self.place()
        spec: dict[str, Any] = {"timeoutMs": self.random.randint(1, 9)}
        spec |= {"type": "pre"} if self.maybe(0.2) else {}
        spec |= {"enabled": False} if self.maybe(0.15) else {}
        spec |= {"suspend": True} if self.maybe(0.2) else {}
        spec |= {"deletionPolicy": "Retain"} if self.maybe(0.2) else {}
        spec |= {"subject": "beamline.provider.same.v1"} if self.maybe(0.1) else {}
        spec |= {"timeoutMs": -1} if self.maybe(0.1) else {}
        if self.maybe(0.5):
            image = f"ok/x:{self.random.randint(1, 3)}" if self.maybe(0.8) else "evil/x"
            rollback = self.random.choice(["auto", "manual"])
            spec["workload"] = {"image": image, "replicas": self.random.randint(0, 2), "rollback": rollback}
        if place["name"] != "a" and self.maybe(0.3):
            spec |= {"versionOf": "a", "version": "v2"} | ({"canary": CANARY} if self.maybe(0.6) else {})
        self.world.extension(**place, **spec)

    async def route(self) -> None:
        self.world.policy(self.random.choice(NAMES), **self.place(), suspend=self.maybe(0.2))

    async def remove(self) -> None:
        if keys := [one.key for one in objects(self.world) if not one.metadata.deleting]:
            self.world.store.delete(self.random.choice(keys))

    async def annotate(self) -> None:
        if keys := [one.key for one in self.world.store.list("Extension")]:
            said = {self.random.choice(ANNOTATIONS): str(self.random.random())}
            self.world.store.annotate(self.random.choice(keys), said)

    async def report(self) -> None:
        self.world.report(self.random.choice(["r1", "r2"]), revision=self.random.choice([None, 0, 3]))

    async def sicken(self) -> None:
        phase = self.random.choice([Phase.PROGRESSING, Phase.FAILED, Phase.CREDENTIALS_MISSING])
        self.world.deployments.phase[self.random.choice(NAMES)] = (phase, "as it is")

    async def fault(self) -> None:
        match self.random.randrange(3):
            case 0:
                self.world.registry.outage = RegistryUnavailableError("gone")
            case 1:
                self.world.store.fail = StoreError("429")
            case _:
                self.world.deployments.fail = DeploymentError("503")

    async def heal(self) -> None:
        self.world.registry.outage = self.world.store.fail = self.world.deployments.fail = None

    async def restart(self) -> None:
        self.world.restart()

    async def compare(self) -> None:
        try:
            await self.world.controller.compare()
        except (RegistryError, DeploymentError):
            assert self.world.registry.outage or self.world.deployments.fail

    async def wait(self) -> None:
        await self.world.advance(self.random.choice([1, 6, 400]))


def objects(world: Any) -> list[StoredObject]:
    return [stored for kind in KINDS for stored in world.store.list(kind)]


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happened_all_is_as_asked_for_in_the_end(world: Any, seed: int) -> None:
    await Chaos(world, seed).play()
    rows = {(type(row).__name__[0], row.namespace, row.name): row for row in await every_row(world)}
    for stored in objects(world):
        key = stored.key
        assert not stored.metadata.deleting, f"{key} hangs"
        assert stored.status["observedGeneration"] == stored.metadata.generation
        if isinstance(stored, BrokenObject):
            assert world.verdict(key, "Accepted") == ("False", "Invalid")
            continue
        if stored.spec.suspend:
            continue
        for condition in stored.status["conditions"]:
            assert condition["observedGeneration"] == stored.metadata.generation, condition
        if world.verdict(key, "Synced")[0] == "True":
            row = rows["E" if key.kind == "Extension" else "P", key.namespace, key.name]
            assert (row.uid, row.generation) == (stored.metadata.uid, stored.metadata.generation)
        else:
            refused = world.verdict(key, "Accepted")[0] == "False"
            assert refused or world.verdict(key, "ResolvedRefs")[1] == "RefWrongType", key
        if isinstance(stored, Extension) and world.verdict(key, "Accepted")[0] == "True":
            runs_as_asked_for(world, stored)
    assert all(one.workload.image.startswith("ok/") for one in world.deployments.running.values())
    await stays_still(world)


async def every_row(world: Any) -> list[Any]:
    delta = await world.registry.read(0)
    return [*delta.extensions, *delta.policies]


def runs_as_asked_for(world: Any, stored: Extension) -> None:
    running = world.deployments.running.get((stored.metadata.namespace, stored.metadata.name))
    asked = stored.spec.workload
    if asked is None:
        assert running is None or not running.owner_uid, "at most what an earlier object left behind"
        return
    assert running.owner_uid == stored.metadata.uid
    assert running.replicas == (asked.replicas if stored.spec.enabled else 0)
    assert running.workload == asked or "rolledBack" in stored.status


async def stays_still(world: Any) -> None:
    """Nothing is written for what is at rest, whatever wakes it."""
    over = {state.value for state in OVER}
    if any("canary" in one.status and one.status["canary"]["state"] not in over for one in objects(world)):
        return
    before = (world.store.writes, len(world.deployments.deployed), world.registry._revision)
    for key in [one.key for one in objects(world)]:
        world.controller.enqueue(key)
    await world.settle()
    assert (world.store.writes, len(world.deployments.deployed), world.registry._revision) == before
