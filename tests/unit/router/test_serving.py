"""What a request leaves behind, wherever it is cut off: one record, and nothing taken."""

from __future__ import annotations

import asyncio
import io
from random import Random
from typing import Any

import orjson
import pytest

from beamline_router.core.pipeline import Pipeline
from beamline_router.core.state import Runtime
from beamline_router.core.tenant_limits import Limits, TenantLimits
from beamline_router.edges.access_log import AccessLog
from beamline_router.edges.gate import Gate
from beamline_router.edges.serving import Serving
from beamline_router.edges.telemetry import Telemetry
from beamline_router.edges.trails import Trails, Wanted
from beamline_router.fakes import After, FakeRng
from harness.router_world import PASS, World, check, fails, post, pre, provider, says

BODY = b'{"tenant_id": "acme", "prompt": "a secret"}'


class Desk:
    """A :class:`Serving` on a scripted core, with everything that keeps records."""

    def __init__(self) -> None:
        self.world = world = World(rng=FakeRng(0.5))
        clock = world.clock
        self.telemetry = Telemetry(wall=clock.wall)
        world.runtime = Runtime(clock, world.rng, self.telemetry)
        world.pipeline = Pipeline(
            world.transport, world.runtime, self.telemetry, clock, clock.sleep, world.rng, wall=clock.wall
        )
        self.written = io.BytesIO()
        self.lines = AccessLog(stream=lambda: self.written, wall=clock.wall)
        self.trails = Trails(
            "router", snapshot=lambda: world.snapshot, clock=clock, wall=clock.wall, draw=lambda: 0.5
        )
        limits = TenantLimits(Limits(rate=1_000.0, burst=1_000.0, concurrency=10.0))
        self.gate = Gate(self.telemetry, limit=10, limits=limits, clock=clock, wall=clock.wall)
        self.serving = Serving(
            run=world.pipeline.run,
            snapshot=lambda: world.snapshot,
            telemetry=self.telemetry,
            access_log=self.lines,
            bits=Random(1).getrandbits,
            gate=self.gate,
            trails=self.trails,
            clock=clock,
            wall=clock.wall,
        )

    def records(self) -> list[Any]:
        """The error of each request as its log line has it; metric and trail say the same."""
        self.lines.flush()
        traffic: Any = self.telemetry.traffic(None)
        logged = [orjson.loads(line)["error"] for line in self.written.getvalue().splitlines()]
        kept = self.trails.recent(Wanted(1_000))
        assert traffic["requests"] == len(logged)
        assert [one["error"] and one["error"]["code"] for one in reversed(kept)] == logged
        assert b"secret" not in self.written.getvalue()
        assert "secret" not in str(kept)
        return logged

    def assert_nothing_taken(self) -> None:
        runtime = self.world.runtime
        assert self.serving.in_flight == 0
        assert self.gate.accounts.in_flight("tenant:acme") == 0
        assert runtime.in_flight() == {}
        assert asyncio.all_tasks() == {asyncio.current_task()}
        for call in self.world.snapshot.compiled_policies["only"].route.calls():
            guard = runtime.guard(call)
            assert guard.gate is None or guard.gate.in_flight == 0
            now = self.world.clock.now
            assert guard.breaker.state != "half-open" or guard.breaker.available(now), "a permit is lost"


@pytest.fixture
def desk() -> Desk:
    """Every kind of step has something to wait for: a reply, a pause, another step, a probe."""
    desk = Desk()
    world = desk.world
    patient = {"circuitBreaker": {"failureThreshold": 10_000}, "retryBudget": {"tokens": 1_000}}
    world.have("other", "validator", retry=1, **patient)
    world.have("beside", "validator")
    world.have(
        "main",
        "provider",
        retry=2,
        retryBudget=patient["retryBudget"],
        circuitBreaker={"failureThreshold": 2, "recoveryTimeoutMs": 500, "maxRecoveryTimeoutMs": 500},
    )
    world.answers("pre", After(0.1, {"prompt": "changed"}))
    world.answers("check", After(0.2, PASS))
    world.answers(
        "other",
        lambda sent: After(0.1, fails("UNAVAILABLE") if sent.headers["Beamline-Attempt"] == "1" else PASS),
    )
    world.answers("beside", After(0.7, PASS))
    world.answers("main", After(0.1, fails("UNAVAILABLE")))
    world.answers("second", After(0.1, says()))
    world.answers("post", After(0.1, {"output": "masked"}))
    world.route(
        pre(),
        check(group="g", concurrency=3),
        check("other", group="g"),
        check("beside", overlap=True),
        provider(fallback=["second"], concurrency=3),
        post(),
    )
    return desk


async def test_wherever_a_request_is_cut_off_it_leaves_one_record_and_takes_nothing_along(desk: Desk) -> None:
    world = desk.world
    ended: list[str | None] = []
    asked: set[str] = set()
    probes = 0
    for hundredths in (*range(1, 150), *range(1, 150)):  # the second time the breaker of main has been open
        before = len(world.transport.sent)
        task = asyncio.create_task(desk.serving.serve("http", BODY, {}))
        await world.clock.advance(hundredths / 100 + 0.0005)
        asked.update(sent.subject.removeprefix("test.") for sent in world.transport.sent[before:])
        probes += world.runtime.breaker_states().get("main") == "half-open"
        ended.append(None if task.done() else "CANCELLED")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() == (ended[-1] is not None)
        desk.assert_nothing_taken()
        assert desk.records()[-1:] == ended[-1:]
        await world.clock.advance(0.5)  # the next call of an open breaker is a probe
    assert desk.records() == ended
    assert asked == {"pre", "check", "other", "beside", "main", "second", "post"}
    assert set(ended) == {None, "CANCELLED"}
    assert probes > 5


async def test_one_of_several_that_is_cut_off_gives_back_its_own(desk: Desk) -> None:
    tasks = [asyncio.create_task(desk.serving.serve("http", BODY, {})) for _ in range(3)]
    await desk.world.clock.advance(0.15)
    tasks[1].cancel()
    await desk.world.clock.settle()
    assert desk.serving.in_flight == desk.gate.accounts.in_flight("tenant:acme") == 2
    assert desk.world.runtime.in_flight() == {"check": 2, "check@only/1": 2, "other": 2}
    await desk.world.clock.advance(60)
    assert sorted(map(str, desk.records())) == ["CANCELLED", "None", "None"]
    desk.assert_nothing_taken()
