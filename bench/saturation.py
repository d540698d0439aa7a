"""Row "saturation": requests per second of one router process, three steps, every feature on.

Real processes: PostgreSQL, nats-server, one responder per step, the router with its default settings
(metrics, deadline, retry, breaker, trace context, one log line per request), two load generators. The
router has a core for itself where ``taskset`` exists; the baseline process, which does three bare requests
and nothing else, gets the same core. Rounds alternate, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from statistics import median
from typing import Any

import orjson

from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPostgres
from beamline_contract.names import SUBJECT_INVOKE
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.migrate import migrate
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry
from bench.baseline import BODY
from bench.parts import Parts, Row, cpu_seconds, parts

IN_FLIGHT = (32, 64, 256)
GENERATORS = 2
WARM_UP_S = 0.5
GOAL_RATIO = 2.5
GOAL_RATE = 10_000
STEPS = (
    ("bench_pre", "pre", "beamline.ext.pre.bench_pre.v1", {"prompt": BODY["prompt"]}),
    ("bench_guard", "validator", "beamline.ext.validate.bench_guard.v1", {"verdict": "pass"}),
    (
        "bench_provider",
        "provider",
        "beamline.provider.bench_provider.v1",
        {
            "provider_id": "bench_provider",
            "output": "y" * 600,
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            "metadata": {"model": "bench", "finish_reason": "stop", "latency_ms": 0},
        },
    ),
)


@dataclass(frozen=True)
class Round:
    """One measurement of one side. ``cpu_per_1000`` is CPU seconds of the measured process."""

    side: str
    in_flight: int
    rate: float
    cpu_per_1000: float | None
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    measured: list[Round] = []
    with parts() as made:
        # LocalNats and LocalPostgres stop themselves with us, but are started here and pinned afterwards.
        nats, postgres = LocalNats(), LocalPostgres(made.folder / "data", settings={"fsync": "off"})
        try:
            nats.start()
            postgres.start()
            _pin(made, nats.pid, postgres.pid)
            asyncio.run(_fill(postgres.url()))
            _responders(made, nats.url)
            router, port = _router(made, nats.url, postgres.url())
            _wait_ready(port)
            for number in range(rounds):
                for in_flight in IN_FLIGHT:
                    sides = [_baseline, _through_router]
                    order = sides if number % 2 == 0 else sides[::-1]
                    measured.extend(side(made, nats.url, router, in_flight, seconds) for side in order)
        finally:
            for child in made.children:
                child.terminate()
            postgres.stop()
            nats.stop()
    return _rows(measured), {"rounds": [vars(one) for one in measured]}


def _pin(made: Parts, *pids: int | None) -> None:
    for pid in pids:
        command = made.pinned([], measured=False)
        if command and pid is not None:
            subprocess.run(
                [*command[:1], "-a", "-cp", command[2], str(pid)], check=False, capture_output=True
            )


async def _fill(url: str) -> None:
    await migrate(url)
    registry = await PostgresRegistry.connect(url)
    epoch = await registry.acquire_epoch("bench")
    extensions = [
        ExtensionRecord(
            id=name,
            type=kind,
            subject=subject,
            namespace="bench",
            name=name.replace("_", "-"),
            uid=name,
            generation=1,
            spec={"concurrency": 10_000},
        )
        for name, kind, subject, _ in STEPS
    ]
    steps: list[dict[str, Any]] = [
        {"action": "extension_pre", "extension_id": "bench_pre"},
        {"action": "extension_validator", "extension_id": "bench_guard"},
        {"action": "select_provider", "provider_id": "bench_provider", "fallback": []},
    ]
    document = {"match": {}, "priority": 0, "deadline_ms": 10_000, "steps": steps, "fallback": []}
    policy = PolicyRecord(
        id="bench", namespace="bench", name="bench", uid="bench", generation=1, policy=document
    )
    writes = [*(Upsert(record, "bench") for record in extensions), Upsert(policy, "bench")]
    await registry.write(writes, epoch=epoch)
    await registry.close()


def _responders(made: Parts, url: str) -> None:
    for name, _, subject, reply in STEPS:
        body = orjson.dumps(reply).decode()
        child = made.module("bench.responder", url, subject, name, body, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()


def _router(made: Parts, nats_url: str, database_url: str) -> tuple[subprocess.Popen[bytes], int]:
    log = made.folder / "router.log"
    env = {
        **os.environ,
        "NATS_URL": nats_url,
        "BEAMLINE_DATABASE_URL": database_url,
        "BEAMLINE_HTTP_PORT": "0",
        "LOG_LEVEL": "info",
    }
    with log.open("wb") as out:
        child = made.module("beamline_router", measured=True, env=env, stderr=out)
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        for line in log.read_bytes().splitlines():
            entry = orjson.loads(line)
            if entry["event"] == "router.listening":
                return child, int(entry["url"].rpartition(":")[2])
        time.sleep(0.05)
    raise RuntimeError(f"the router did not start: {log.read_text()[-500:]}")


def _wait_ready(port: int) -> None:
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as reply:
                if b'"status":"ready"' in reply.read():
                    return
        except urllib.error.HTTPError as error:
            error.close()
        except urllib.error.URLError:
            pass
        time.sleep(0.05)
    raise RuntimeError("the router did not become ready")


def _baseline(
    made: Parts, url: str, _router: subprocess.Popen[bytes], in_flight: int, seconds: float
) -> Round:
    subjects = [subject for _, _, subject, _ in STEPS]
    child = made.module(
        "bench.baseline", url, in_flight, WARM_UP_S, seconds, *subjects, measured=True, stdout=subprocess.PIPE
    )
    got = made.figures(child)
    return Round(
        "baseline", in_flight, got["requests"] / got["seconds"], _per_1000(got["cpu"], got["requests"])
    )


def _through_router(
    made: Parts, url: str, router: subprocess.Popen[bytes], in_flight: int, seconds: float
) -> Round:
    body = orjson.dumps(BODY).decode()
    children = [
        made.module(
            "bench.load",
            *(url, SUBJECT_INVOKE, in_flight // GENERATORS, WARM_UP_S, seconds, body),
            stdout=subprocess.PIPE,
        )
        for _ in range(GENERATORS)
    ]
    # The generators take a moment to start; CPU time is taken over the middle of their common window.
    time.sleep(WARM_UP_S + 0.6)
    cpu, began = cpu_seconds(router.pid), time.monotonic()
    time.sleep(max(0.2, seconds - 0.8))
    spent, lasted = cpu_seconds(router.pid), time.monotonic() - began
    got = [made.figures(child) for child in children]
    rate = sum(one["requests"] / one["seconds"] for one in got)
    cpu_per_1000 = None if cpu is None or spent is None else _per_1000(spent - cpu, rate * lasted)
    return Round(
        "router",
        in_flight,
        rate,
        cpu_per_1000,
        p50_ms=median(one["p50_ms"] for one in got),
        p99_ms=max(one["p99_ms"] for one in got),
        errors=sum(one["errors"] for one in got),
    )


def _per_1000(cpu: float, requests: float) -> float | None:
    return cpu / requests * 1000 if requests else None


def _rows(measured: list[Round]) -> list[Row]:
    rows = []
    best = 0.0
    for in_flight in IN_FLIGHT:
        router = [one for one in measured if one.side == "router" and one.in_flight == in_flight]
        base = [one for one in measured if one.side == "baseline" and one.in_flight == in_flight]
        ratios = [mine.rate / theirs.rate for mine, theirs in zip(router, base, strict=True)]
        best = max(best, median(one.rate for one in router))
        rows += [
            Row(
                f"3 steps, {in_flight} in flight: bare nats-py loop, req/s",
                "",
                _spread([one.rate for one in base]),
                None,
            ),
            Row(
                f"3 steps, {in_flight} in flight: router, req/s",
                "",
                _spread([one.rate for one in router]),
                None,
            ),
            Row(
                f"3 steps, {in_flight} in flight: router / bare loop",
                f">= {GOAL_RATIO}",
                _spread(ratios, ".2f"),
                median(ratios) >= GOAL_RATIO,
            ),
            Row(
                f"3 steps, {in_flight} in flight: CPU s per 1,000, router | bare",
                "",
                " | ".join(_spread([one.cpu_per_1000 for one in side], ".3f") for side in (router, base)),
                None,
            ),
        ]
    errors = sum(one.errors for one in measured)
    rows.append(
        Row("3 steps: router, req/s, best median", f">= {GOAL_RATE:,}", f"{best:,.0f}", best >= GOAL_RATE)
    )
    rows.append(Row("error answers under load", "0", str(errors), errors == 0))
    return rows


def _spread(values: list[Any], how: str = ",.0f") -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "not measured here"
    return " / ".join(format(value, how) for value in (min(known), median(known), max(known)))
