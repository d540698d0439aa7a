"""Row "scale": 2,000 Extensions and 5,000 RoutingPolicies, written at 100 a second to a real API server.

What is asked: how long after the last write the last policy serves on all routers (one Extension alone, just
before, is the baseline); when every object's status says Ready; what operator and routers then weigh; how
many API requests the operator made per object; and how long an operator that is started anew over all of
them takes until nothing is due any more.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from bench.cluster import EXTENSION, NAMESPACE, POLICY, Everything, everything
from bench.parts import Row, cpu_seconds, resident_mb, spread, tree

EXTENSIONS = int(os.environ.get("BENCH_EXTENSIONS", "2000"))
POLICIES = int(os.environ.get("BENCH_POLICIES", "5000"))
"""The environment makes a small run of it, for work on the operator itself."""
PER_SECOND, WRITERS = 100, 8
LAST_S, OPERATOR_MB, ROUTER_MB, RESTART_S = 5.0, 300.0, 150.0, 30.0  # the goals
GIVE_UP_S = 180.0
POLL_S = 0.05
"""Each look is a request to every router; more of them would be a load of their own."""
SCRAPE_S, LIST_S = 0.5, 2.0
"""Between two looks at the operator's metrics, and at all objects: thousands of them in one answer cost an
API server as much as a hundred writes, so looking more often would measure the looking.
"""


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """One round, whatever is asked for: it takes minutes. ``seconds`` has no meaning here."""
    with everything() as made:
        alone = _served(made, "alone", _policy("alone", "mock-provider"))
        before, began = _cpu(made), time.monotonic()
        _write_all(made)
        wrote, written = time.monotonic() - began, _cpu(made)
        last = _served(made, "last", _policy("last", f"size-{EXTENSIONS - 1}", "mock-provider"))
        ready = last + _until(lambda: _settled(made), SCRAPE_S) + _until(lambda: _unready(made) == 0, LIST_S)
        load, done = os.getloadavg()[0], _cpu(made)
        writing = {name: written[name] - before[name] for name in before}
        whole = {name: done[name] - before[name] for name in before}
        calls, memory = _calls(made), resident_mb(_pid(made.operator))
        routers = [resident_mb(_pid(router)) for router in made.routers]
        made.operator.stop()
        made.operator.start(wait=False)
        settled = _until(lambda: _settled(made), SCRAPE_S)
        restarted_calls = _calls(made)
    objects = EXTENSIONS + POLICIES
    rows = [
        Row("one policy alone, applied -> served, s", "", f"{alone:.2f}", None),
        Row(f"{objects:,} objects written, per second", "", f"{objects / wrote:.0f}", None),
        Row("last write -> served by all routers, s", f"<= {LAST_S:g}", f"{last:.2f}", last <= LAST_S),
        Row("last write -> every object Ready, s", "", f"{ready:.1f}", None),
        Row("operator, resident MB", f"<= {OPERATOR_MB:g}", f"{memory:.0f}", memory <= OPERATOR_MB),
        Row("routers, resident MB", f"<= {ROUTER_MB:g}", spread(routers), max(routers) <= ROUTER_MB),
        Row("API requests of the operator per object", "", f"{sum(calls.values()) / objects:.2f}", None),
        *(
            Row(f"CPU of {name}, ms per object: while writing / in all", "",
                f"{1000 * writing[name] / objects:.2f} / {1000 * whole[name] / objects:.2f}", None)
            for name in whole
        ),
        Row("load average of the machine", "", f"{load:.1f}", None),
        Row("operator started anew -> nothing due, s", f"<= {RESTART_S:g}", f"{settled:.1f}",
            settled <= RESTART_S),
        Row("API requests of that start", "", f"{sum(restarted_calls.values()):,.0f}", None),
    ]  # fmt: skip
    raw = {"written_s": wrote, "calls": calls, "restart_calls": restarted_calls, "routers_mb": routers,
           "cpu_s_writing": writing, "cpu_s": whole, "load": load}  # fmt: skip
    return rows, raw


def _policy(tenant: str, *providers: str) -> dict[str, Any]:
    first, *others = ({"extensionRef": {"name": name}} for name in providers)
    step = {"action": "select_provider", "providers": [first], "fallback": others}
    spec = {"match": {"tenants": [tenant]}, "priority": 1, "steps": [step]}
    return {**POLICY, "metadata": {"name": f"tenant-{tenant}"}, "spec": spec}


def _write_all(made: Everything) -> None:
    objects = [
        {**EXTENSION, "metadata": {"name": f"size-{number}"}, "spec": {"type": "provider", "timeoutMs": 1000}}
        for number in range(EXTENSIONS)
    ]
    objects += [_policy(f"t{number}", f"size-{number % EXTENSIONS}") for number in range(POLICIES)]
    began = time.monotonic()
    failures: list[str] = []

    def write(mine: int) -> None:
        for number in range(mine, len(objects), WRITERS):
            time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            answer = made.rest.create(NAMESPACE, objects[number])
            if not answer.accepted:
                failures.append(answer.message)

    threads = [threading.Thread(target=write, args=(mine,)) for mine in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{len(failures)} objects were refused, the first with: {failures[0]}")


def _served(made: Everything, tenant: str, policy: dict[str, Any]) -> float:
    """Seconds from the answered write to the moment at which every router takes the tenant's own policy."""
    answer = made.rest.create(NAMESPACE, policy)
    if not answer.accepted:
        raise RuntimeError(answer.message)
    wanted = f"tenant_{tenant}"

    def served() -> bool:
        replies = [made.world.route(router, {"prompt": "?", "tenant_id": tenant}) for router in made.routers]
        return all(reply.headers.get("x-beamline-policy", "").endswith(wanted) for reply in replies)

    return _until(served)


def _until(done: Any, pause_s: float = POLL_S) -> float:
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > GIVE_UP_S:
            raise RuntimeError(f"not within {GIVE_UP_S:.0f} s")
        time.sleep(pause_s)
    return time.monotonic() - began


def _unready(made: Everything) -> int:
    count = 0
    for plural in ("extensions", "routingpolicies"):
        path = f"/apis/beamline.io/v1alpha1/namespaces/{NAMESPACE}/{plural}"
        for one in made.rest.request("GET", path, resourceVersion="0").body["items"]:
            conditions = {
                entry["type"]: entry["status"] for entry in one.get("status", {}).get("conditions", [])
            }
            count += conditions.get("Ready") != "True"
    return count


def _metrics(made: Everything) -> str:
    try:
        return made.world.http.get(f"http://127.0.0.1:{made.operator.port}/metrics").text
    except Exception:  # noqa: BLE001 -- it is being started
        return ""


def _calls(made: Everything) -> dict[str, float]:
    lines = [
        line for line in _metrics(made).splitlines() if line.startswith("beamline_operator_api_calls_total")
    ]
    return {line.partition("{")[2].partition("}")[0]: float(line.rpartition(" ")[2]) for line in lines}


def _settled(made: Everything) -> bool:
    def value(name: str) -> float:
        lines = [line for line in _metrics(made).splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    whole = EXTENSIONS + POLICIES
    if value("beamline_operator_reconcile_seconds_count") < whole:
        return False
    return value("extension_registry_size") >= whole and value("beamline_operator_queue_depth ") == 0


def _cpu(made: Everything) -> dict[str, float]:
    """CPU seconds so far, by part; the load generator is this process."""
    pids = {
        "operator": [_pid(made.operator)],
        **{name.removeprefix("kube-"): [pid] for name, pid in made.plane.pids().items()},
        "PostgreSQL": tree(made.world.postgres.pid or 0),
        "three routers": [_pid(router) for router in made.routers],
        "load": [os.getpid()],
    }
    return {name: sum(cpu_seconds(pid) or 0.0 for pid in found) for name, found in pids.items()}


def _pid(process: Any) -> int:
    return int(process.pid)
