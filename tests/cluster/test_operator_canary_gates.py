"""What a canary does with what routers report, with annotations, edits and deletions, on a real API server.

Every trial has a base and a version of its own, and all of them run at the same time on one operator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from operatorbench import Bench
from routerplayer import RouterPlayer

from beamline_sdk.deployment.kube_api import MERGE

pytestmark = pytest.mark.timeout(240)

STEPS = [{"weight": 10, "pauseSeconds": 0}, {"weight": 50, "pauseSeconds": 0}]
GATES = {"minSamples": 10, "maxErrorRate": 0.2, "maxLatencyMs": 500}
LONG = [{"weight": 10, "pauseSeconds": 600}, {"weight": 50, "pauseSeconds": 600}]
GOOD = {"success": 10, "latency_ms_sum": 1000.0}


class Trial:
    """One base, one version, and the calls that routers report of it."""

    def __init__(self, bench: Bench, routers: RouterPlayer, name: str) -> None:
        self.bench = bench
        self.routers = routers
        self.base, self.name = name, f"{name}-v2"
        self.id = self.name.replace("-", "_")

    async def begin(self, steps: Any = STEPS, **spec: Any) -> None:
        await self.bench.extension(self.base, workload=None)
        await self.bench.wait("Extension", self.base, "Synced", "True")
        await self.ask(steps, **spec)
        await self.reaches("Progressing", step=1)

    async def ask(self, steps: Any = STEPS, **spec: Any) -> None:
        canary = {"steps": steps, "gates": GATES}
        names = {"version": "2.0", "versionOf": self.base}
        await self.bench.extension(self.name, workload=None, canary=canary, **names, **spec)

    async def calls(self, *reports: dict[str, Any]) -> None:
        """One report of each router, in their order."""
        for number, report in enumerate(reports, 1):
            await self.routers.health(self.id, f"r{number}", **report)

    async def canary(self) -> dict[str, Any]:
        found = await self.bench.get("Extension", self.name)
        return dict(found.get("status", {}).get("canary", {})) if found is not None else {}

    async def reaches(self, state: str, **more: Any) -> dict[str, Any]:
        wanted = {"state": state, **more}

        async def there() -> dict[str, Any]:
            found = await self.canary()
            return found if {name: found.get(name) for name in wanted} == wanted else {}

        return dict(await self.bench.until(there, f"{self.name}: {wanted}", seconds=90))

    async def annotate(self, name: str, value: str) -> None:
        body = {"metadata": {"annotations": {f"beamline.io/{name}": value}}}
        path = self.bench.path("Extension", self.name)
        await self.bench.api.request("PATCH", path, body=body, content_type=MERGE)

    async def weights(self) -> tuple[int, int]:
        rows = await self.bench.rows()
        return rows[self.base].weight, rows[self.id].weight

    async def divided(self, base: int, version: int) -> None:
        async def so() -> bool:
            return await self.weights() == (base, version)

        await self.bench.until(so, f"{self.name}: weights {base} to {version}")

    async def told(self) -> list[str]:
        path = f"/apis/events.k8s.io/v1/namespaces/{self.bench.namespace}/events"
        return [
            item["reason"]
            async for item in self.bench.api.items(path)
            if item["regarding"]["name"] == self.name and item["reason"].startswith("Canary")
        ]

    async def over(self, state: str, reason: str, says: str, *events: str) -> None:
        """The end, as condition, events and weights. A pause depends on when the calls were reported."""
        found = await self.reaches(state)
        assert says in found["message"], found
        status = {"Promoted": "True"}.get(state, "False")
        told = await self.bench.wait("Extension", self.name, "Canary", status, reason)
        assert says in told["message"]
        await self.divided(*((0, 100) if state == "Promoted" else (100, 0)))

        async def complete() -> bool:
            told = [reason for reason in await self.told() if reason != "CanaryPaused"]
            return sorted(told) == sorted(events)

        await self.bench.until(complete, f"{self.name}: the events {events}, not {await self.told()}")


async def all_steps_hold(trial: Trial) -> None:
    await trial.begin()
    await trial.divided(9, 1)
    few, slow = (
        {"success": 9, "latency_ms_sum": 900.0},
        {"success": 9, "failure": 2, "latency_ms_sum": 7000.0},
    )
    await trial.calls(few, slow)  # the first alone would be too few, the second alone too slow
    await trial.reaches("Progressing", step=2)
    await trial.divided(1, 1)
    await trial.calls(GOOD)
    await trial.over(
        "Promoted", "CanaryPromoted", "All 2 steps held", "CanaryStep", "CanaryStep", "CanaryPromoted"
    )


async def errors_of_all_routers_count_together(trial: Trial) -> None:
    await trial.begin(LONG)
    await trial.bench.wait("Extension", trial.name, "Canary", "Unknown", "CanaryProgressing")
    await trial.calls(GOOD, {"success": 5, "failure": 5})
    await trial.over(
        "RolledBack", "CanaryRolledBack", "5 of 20 calls failed", "CanaryStep", "CanaryRolledBack"
    )


async def latency_of_all_routers_counts_together(trial: Trial) -> None:
    await trial.begin(LONG)
    await trial.calls(GOOD, {"success": 10, "latency_ms_sum": 20_000.0})
    await trial.over("RolledBack", "CanaryRolledBack", "1050 ms on average", "CanaryStep", "CanaryRolledBack")


async def an_open_breaker_turns_it_back_whatever_the_number_of_calls(trial: Trial) -> None:
    await trial.begin(LONG)
    await trial.calls({"success": 2}, {"failure": 1, "breaker": "open"})
    await trial.over(
        "RolledBack", "CanaryRolledBack", "its breaker is open", "CanaryStep", "CanaryRolledBack"
    )


async def too_few_calls_are_waited_for_and_count_when_their_router_is_gone(trial: Trial) -> None:
    await trial.begin()
    await trial.routers.status("short-lived")
    await trial.routers.health(trial.id, "short-lived", success=6)
    await trial.reaches("Paused", step=1)

    async def named() -> bool:
        return "fewer than 10 calls" in (await trial.canary())["message"]

    await trial.bench.until(named, f"{trial.name}: what it waits for")
    await trial.bench.wait("Extension", trial.name, "Canary", "Unknown", "CanaryPaused")
    await trial.routers.status("short-lived", leaving=True)
    await trial.calls({"success": 4})
    await trial.reaches("Paused", step=2)
    assert {"CanaryStep", "CanaryPaused"} <= set(await trial.told())


async def another_spec_begins_anew_and_other_steps_go_on(trial: Trial) -> None:
    await trial.begin()
    await trial.calls(GOOD)
    await trial.reaches("Paused", step=2)
    await trial.ask([*STEPS, {"weight": 70, "pauseSeconds": 0}])
    await trial.bench.wait("Extension", trial.name, "Canary", "Unknown", "CanaryPaused")
    assert (await trial.canary())["step"] == 2
    await trial.ask(timeoutMs=77)
    await trial.reaches("Progressing", step=1)
    await trial.divided(9, 1)


async def the_base_has_everything_when_the_version_goes(trial: Trial) -> None:
    await trial.begin(LONG)
    await trial.divided(9, 1)
    await trial.bench.delete("Extension", trial.name)
    await trial.bench.gone("Extension", trial.name)

    async def alone() -> bool:
        rows = await trial.bench.rows()
        return rows[trial.base].weight == 100 and trial.id not in rows

    await trial.bench.until(alone, f"{trial.base} alone")


async def suspended_it_stands_still_and_goes_on_after(trial: Trial) -> None:
    await trial.begin()
    await trial.divided(9, 1)
    await trial.ask(suspend=True)
    await trial.bench.wait("Extension", trial.name, "Ready", "True", "Suspended")
    await trial.calls({"success": 1, "failure": 99})
    await asyncio.sleep(6)  # longer than a canary is left alone
    assert (await trial.canary())["step"] == 1
    assert await trial.weights() == (9, 1)
    await trial.ask()
    await trial.reaches("RolledBack")


async def promoted_by_hand(trial: Trial) -> None:
    await trial.begin(LONG)
    await trial.annotate("promote", "step-1")
    await trial.reaches("Progressing", step=2)
    await trial.annotate("promote", "now")
    await trial.over(
        "Promoted", "CanaryPromoted", "beamline.io/promote", "CanaryStep", "CanaryStep", "CanaryPromoted"
    )


async def ended_by_hand(trial: Trial) -> None:
    await trial.begin(LONG)
    await trial.annotate("abort", "now")
    await trial.over("Aborted", "CanaryAborted", "Ended by beamline.io/abort", "CanaryStep", "CanaryAborted")


async def its_base_goes_away(trial: Trial) -> None:
    await trial.begin()
    await trial.bench.delete("Extension", trial.base)
    await trial.bench.gone("Extension", trial.base)
    await trial.calls(GOOD)
    await trial.reaches("Paused", step=1)

    async def named() -> bool:  # its row goes before it does, and that is what is told first
        return f"there is no Extension {trial.base}" in (await trial.canary())["message"]

    await trial.bench.until(named, "the base that is missing, by its name")
    await trial.bench.extension(trial.base, workload=None)
    await trial.reaches("Progressing", step=2)


TRIALS: dict[str, Callable[[Trial], Awaitable[None]]] = {
    "steps": all_steps_hold,
    "errors": errors_of_all_routers_count_together,
    "latency": latency_of_all_routers_counts_together,
    "breaker": an_open_breaker_turns_it_back_whatever_the_number_of_calls,
    "few": too_few_calls_are_waited_for_and_count_when_their_router_is_gone,
    "edits": another_spec_begins_anew_and_other_steps_go_on,
    "gone": the_base_has_everything_when_the_version_goes,
    "suspended": suspended_it_stands_still_and_goes_on_after,
    "promote": promoted_by_hand,
    "abort": ended_by_hand,
    "base": its_base_goes_away,
}


async def test_canaries_are_judged_by_what_routers_report_and_moved_by_people(
    bench: Bench, nats_server: Any, cluster: Any
) -> None:
    async with RouterPlayer(nats_server.url) as routers:
        await bench.start()
        for instance in ("r1", "r2"):
            await routers.status(instance)
        trials = {name: Trial(bench, routers, name) for name in TRIALS}
        outcomes = await asyncio.gather(
            *(play(trials[name]) for name, play in TRIALS.items()), return_exceptions=True
        )
        failed = {
            name: repr(found) for name, found in zip(TRIALS, outcomes, strict=True) if found is not None
        }
        assert failed == {}
        wide = cluster.kubectl("get", "-n", bench.namespace, "ext", "errors-v2", "steps-v2", "-o", "wide")
        header, turned, promoted = wide.stdout.splitlines()
        at = header.index("CANARY")
        assert turned[at:].split()[:2] == ["RolledBack", "0"]
        assert promoted[at:].split()[:2] == ["Promoted", "100"]

        # A new operator goes on with what stands in status, and starts nothing anew.
        halfway = trials["few"]
        before = await halfway.canary()
        await bench.stop()
        await bench.start()
        assert (await halfway.canary())["since"] == before["since"]

        async def promoted() -> bool:
            await halfway.calls(GOOD)
            return (await halfway.canary())["state"] == "Promoted"

        await bench.until(promoted, "the end of a canary that began under another operator")
        assert (await trials["errors"].canary())["state"] == "RolledBack"
