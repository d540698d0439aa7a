"""From a change applied to a change served: real API server, operator, three routers, verified by traffic.

One sample: the object is patched; the clock starts when the API server has answered; it stops for a router
when that router's own answer carries the new value. Every router is asked by a thread of its own, so what is
reported is the last one. The baseline of the same sample is the API server's own watch: the same change,
seen by a bare watcher.
"""

from __future__ import annotations

import json
import threading
import time
from statistics import median, quantiles

from bench.cluster import NAMESPACE, ROUTERS, Process, Rest, World, everything
from bench.parts import Row, spread

SAMPLES_PER_ROUND = 20
GOAL_P50_MS, GOAL_P99_MS = 100.0, 500.0
GIVE_UP_S = 10.0


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, object]]:
    """``rounds`` times :data:`SAMPLES_PER_ROUND` changes. ``seconds`` has no meaning here."""
    samples: list[list[dict[str, float]]] = []
    with everything() as made:
        rest, world, routers = made.rest, made.world, made.routers
        watcher = _Watcher(rest)
        _change(rest, world, routers, watcher, "warm")
        for number in range(rounds):
            values = [f"r{number}s{sample}" for sample in range(SAMPLES_PER_ROUND)]
            samples += [[_change(rest, world, routers, watcher, value) for value in values]]
        watcher.stop()
    served = [sorted(sample["served_ms"] for sample in one) for one in samples]
    watched = [sorted(sample["watch_ms"] for sample in one) for one in samples]
    p50, p99 = (
        [median(one) for one in served],
        [quantiles(one, n=100, method="inclusive")[98] for one in served],
    )
    what = f"applied -> served by all {ROUTERS} routers, ms"
    rows = [
        Row(
            "API server's own watch latency p50, ms",
            "",
            spread([median(one) for one in watched], ".1f"),
            None,
        ),
        Row(f"{what}, p50", f"<= {GOAL_P50_MS:.0f}", spread(p50, ".1f"), median(p50) <= GOAL_P50_MS),
        Row(f"{what}, p99", f"<= {GOAL_P99_MS:.0f}", spread(p99, ".1f"), median(p99) <= GOAL_P99_MS),
    ]
    return rows, {"samples": samples, "routers": ROUTERS}


def _change(
    rest: Rest, world: World, routers: list[Process], watcher: _Watcher, value: str
) -> dict[str, float]:
    """Patches the answer to ``value`` and waits until every router gives it."""
    started = threading.Barrier(len(routers) + 1)
    seen: dict[str, float] = {}
    sees = watcher.expect(value)

    def ask(router: Process) -> None:
        started.wait()
        give_up = time.monotonic() + GIVE_UP_S
        while time.monotonic() < give_up:
            if world.route(router, {"prompt": "?"}).json().get("output") == value:
                seen[router.name] = time.monotonic()
                return
            time.sleep(0.001)

    threads = [threading.Thread(target=ask, args=(router,)) for router in routers]
    for thread in threads:
        thread.start()
    started.wait()
    patched = rest.request(
        "PATCH",
        f"/apis/beamline.io/v1alpha1/namespaces/{NAMESPACE}/extensions/mock-provider",
        {"spec": {"config": {"answer": value}}},
        "application/merge-patch+json",
    )
    applied = time.monotonic()
    if not patched.accepted:
        raise RuntimeError(patched.message)
    for thread in threads:
        thread.join()
    if len(seen) < len(routers):
        raise RuntimeError(f"{value} was not served by every router within {GIVE_UP_S} s")
    watched = sees.wait(GIVE_UP_S) and watcher.times[value]
    return {
        "served_ms": max(0.0, max(seen.values()) - applied) * 1000,
        "watch_ms": max(0.0, float(watched) - applied) * 1000,
    }


class _Watcher:
    """A bare watch on the Extension, with the moment at which each value was first seen."""

    def __init__(self, rest: Rest) -> None:
        self.times: dict[str, float] = {}
        self._events: dict[str, threading.Event] = {}
        path = f"/apis/beamline.io/v1alpha1/namespaces/{NAMESPACE}/extensions?watch=true"
        self._stream = rest.stream(path)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def expect(self, value: str) -> threading.Event:
        return self._events.setdefault(value, threading.Event())

    def _follow(self) -> None:
        for line in self._stream:
            now = time.monotonic()
            value = json.loads(line)["object"].get("spec", {}).get("config", {}).get("answer")
            if value not in self.times:
                self.times[value] = now
                self.expect(value).set()

    def stop(self) -> None:
        self._stream.close()
        self._thread.join(5)
