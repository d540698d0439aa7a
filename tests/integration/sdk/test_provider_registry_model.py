"""The registry against a model of itself: any order of calls, and calls at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from beamline_sdk.framework import BaseProvider, ProviderConfig
from beamline_sdk.registry import ProviderRegistry, RegistryConfig, RegistryError

NAMES = st.sampled_from(["a", "b", "c"])
QUIET = RegistryConfig.model_validate(
    {"discovery": {"enable_environment_discovery": False, "auto_refresh_interval": None}}
)


class Counted(BaseProvider[ProviderConfig]):
    """Counts how many are open; opening yields to others, and may fail."""

    kind = "storage"

    def __init__(self, name: str, opened: set[int], *, fails: bool = False) -> None:
        super().__init__(ProviderConfig(name=name, version="1"))
        self._all = opened
        self._fails = fails

    async def open(self) -> None:
        self._all.add(id(self))
        await asyncio.sleep(0)
        if self._fails:
            raise RuntimeError("can't open")

    async def close(self) -> None:
        await asyncio.sleep(0)
        self._all.discard(id(self))


class RegistryMachine(RuleBasedStateMachine):
    """``model`` is what must be in the table: name to (source, ready or disposed)."""

    tried = Bundle("tried")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened: set[int] = set()
        self.alive: list[Counted] = []
        self.registry = ProviderRegistry(QUIET)
        self.model: dict[str, tuple[str, str]] = {}

    def run(self, work: Any) -> str | None:
        async def answer() -> str | None:
            try:
                await work
            except RegistryError as error:
                return error.code.value
            return None

        return self.runner.run(answer())

    def part(self, name: str, *, fails: bool = False) -> Counted:
        self.alive.append(Counted(name, self.opened, fails=fails))  # kept, so that ids stay unique
        return self.alive[-1]

    @rule(name=NAMES, fails=st.booleans(), source=st.sampled_from(["api", "config"]))
    def register(self, name: str, fails: bool, source: Any) -> None:
        before = self.model.get(name)
        taken = before is not None and not (before[0] != "api" and source == "api")
        got = self.run(self.registry.register(self.part(name, fails=fails), source=source))
        assert got == ("ALREADY_EXISTS" if taken else "REGISTRATION_FAILED" if fails else None)
        if got is None:
            self.model[name] = (source, "ready")

    @rule(name=NAMES)
    def unregister(self, name: str) -> None:
        got = self.run(self.registry.unregister(name))
        assert got == (None if self.model.pop(name, None) else "NOT_FOUND")

    @rule(name=NAMES, phase=st.sampled_from(["start", "stop", "restart", "initialize", "dispose"]))
    def live(self, name: str, phase: str) -> None:
        got = self.run(getattr(self.registry, phase)(name))
        if name not in self.model:
            assert got == "NOT_FOUND"
            return
        source, status = self.model[name]
        if phase == "start" and status == "disposed":
            assert got == "REGISTRATION_FAILED"
            return
        assert got is None
        after = {"dispose": "disposed", "restart": "ready", "initialize": "ready"}.get(phase, status)
        self.model[name] = (source, after)

    @rule(name=NAMES, rivals=st.integers(2, 5))
    def rivals(self, name: str, rivals: int) -> None:
        parts = [self.part(name) for _ in range(rivals)]

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*map(self.registry.register, parts), return_exceptions=True)

        won = [one for one in self.runner.run(all_at_once()) if not isinstance(one, RegistryError)]
        free = name not in self.model or self.model[name][0] != "api"
        assert len(won) == (1 if free else 0)
        if won:
            self.model[name] = ("api", "ready")

    @rule(name=NAMES)
    def comes_and_goes(self, name: str) -> None:
        """One registers while another unregisters: whatever the outcome, table and world agree."""
        part = self.part(name)

        async def both() -> None:
            await asyncio.gather(
                self.registry.unregister(name), self.registry.register(part), return_exceptions=True
            )

        self.runner.run(both())
        self.model.pop(name, None)
        if self.registry.has(name):
            self.model[name] = (self.registry.record(name).source, self.registry.record(name).status)

    @invariant()
    def table_and_world_agree(self) -> None:
        assert self.registry.names() == tuple(sorted(self.model))
        records = {record.name: (record.source, record.status) for record in self.registry.records()}
        assert records == self.model
        ready = {id(record.provider) for record in self.registry.records() if record.status == "ready"}
        assert self.opened == ready, "what is open is in the table, and nothing else is"

    def teardown(self) -> None:
        assert self.runner.run(self.registry.shutdown()) == {}
        assert self.opened == set()
        self.runner.close()


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=40, stateful_step_count=25)


async def test_a_thousand_calls_at_the_same_time_leave_a_table_that_agrees_with_the_world() -> None:
    opened: set[int] = set()
    parts = [Counted(f"p{number % 50}", opened, fails=number % 7 == 0) for number in range(1000)]

    async with ProviderRegistry(QUIET) as registry:

        async def one(part: Counted, number: int) -> None:
            try:
                await registry.register(part)
                if number % 3 == 0:
                    await registry.restart(part.name)
                if number % 2 == 0:
                    await registry.unregister(part.name)
            except RegistryError:
                return

        await asyncio.gather(*(one(part, number) for number, part in enumerate(parts)))
        assert opened == {id(record.provider) for record in registry.records() if record.status == "ready"}
        assert {record.status for record in registry.records()} == {"ready"}
        assert 0 < len(registry) <= 50
    assert opened == set()
