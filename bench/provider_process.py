"""Rows of one provider's process: requests per second and CPU seconds per 1,000, over NATS.

Real processes: nats-server, the provider as it ships (all metrics, deadline, limits of a request), one load
generator, and for the model APIs the cheapest upstream. The provider has a core for itself where ``taskset``
exists; the baseline gets the same core. For a model API that is the vendor's SDK called in a loop, which does
no NATS at all; for the mock it is a responder that answers fixed bytes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from beamline_cli.local.nats import LocalNats
from bench.parts import Parts, Row, cpu_seconds, parts

IN_FLIGHT = 64
WARM_UP_S = 1.0
SUBJECT = "beamline.provider.bench.v1"


@dataclass(frozen=True)
class Measured:
    """One measurement of one side. ``cpu_per_1000`` is CPU seconds of the measured process."""

    side: str
    rate: float
    cpu_per_1000: float | None
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0


def measure(
    name: str, config: dict[str, Any], goal: int, *, rounds: int, seconds: float
) -> tuple[list[Row], dict[str, Any]]:
    """All rounds of one provider; returns the lines of the table and the raw figures."""
    which = None if name == "mock_provider" else name
    measured: list[Measured] = []
    with parts() as made:
        nats = LocalNats()
        try:
            nats.start()
            port = upstream(made) if which is not None else "0"
            measured_process = provider(made, name, nats.url, port)
            if which is None:
                _responder(made, nats.url)
            for number in range(rounds):
                sides = [
                    lambda: _baseline(made, which, nats.url, port, seconds),
                    lambda: _through(
                        made, nats.url, SUBJECT, measured_process, config=config, seconds=seconds
                    ),
                ]
                measured.extend(side() for side in (sides if number % 2 == 0 else sides[::-1]))
        finally:
            for child in made.children:
                child.terminate()
            nats.stop()
    return _rows(name, goal, measured), {"rounds": [vars(one) for one in measured]}


def upstream(made: Parts) -> str:
    """A model API that costs nothing; returns its port."""
    child = made.module("bench.model_api", stdout=subprocess.PIPE)
    assert child.stdout is not None
    return child.stdout.readline().decode().strip()


def _responder(made: Parts, url: str) -> None:
    reply = orjson.dumps({"output": "y" * 100, "usage": {}, "metadata": {}}).decode()
    arguments = (url, f"{SUBJECT}.bare", "bare", reply)
    child = made.module("bench.responder", *arguments, stdout=subprocess.PIPE, measured=True)
    assert child.stdout is not None
    child.stdout.readline()


def provider(
    made: Parts, name: str, nats_url: str, port: str, *, subject: str = SUBJECT
) -> subprocess.Popen[bytes]:
    """The provider as it ships, in front of the model API at ``port``; it listens when this returns."""
    log = made.folder / "provider.log"
    address = f"http://127.0.0.1:{port}"
    env = {
        **os.environ,
        "NATS_URL": nats_url,
        "NATS_SUBJECT": subject,
        "METRICS_PORT": "0",
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"{address}/v1",
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_BASE_URL": address,
    }
    with log.open("wb") as out:
        child = made.module("beamline_extensions", name, measured=True, env=env, stderr=out)
    _wait_for(log, child)
    return child


def _wait_for(log: Path, child: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up and child.poll() is None:
        if b'"extension.ready"' in log.read_bytes():
            return
        time.sleep(0.05)
    raise RuntimeError(f"the provider did not start: {log.read_text()[-500:]}")


def _baseline(made: Parts, which: str | None, nats_url: str, port: str, seconds: float) -> Measured:
    if which is None:
        return _through(
            made, nats_url, f"{SUBJECT}.bare", made.children[-1], config={}, seconds=seconds, side="baseline"
        )
    arguments = (which, port, IN_FLIGHT, WARM_UP_S, seconds)
    child = made.module("bench.bare_sdk", *arguments, measured=True, stdout=subprocess.PIPE)
    got = made.figures(child)
    return Measured("baseline", got["requests"] / got["seconds"], got["cpu"] / got["requests"] * 1000)


def _through(
    made: Parts,
    nats_url: str,
    subject: str,
    process: subprocess.Popen[bytes],
    *,
    config: dict[str, Any],
    seconds: float,
    side: str = "provider",
) -> Measured:
    request = {
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "request_id": "req-7",
        "tenant_id": "bench",
        "extension_id": "bench",
        "provider_id": "bench",
        "messages": [{"role": "user", "content": "Hello"}],
        "parameters": {},
        "config": config,
        "context": {},
    }
    child = subprocess.Popen(
        made.pinned(
            [
                sys.executable, "-m", "bench.load", nats_url, subject, str(IN_FLIGHT), str(WARM_UP_S),
                str(seconds), orjson.dumps(request).decode(),
            ],
            measured=False,
        ),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parent.parent,
    )  # fmt: skip
    time.sleep(WARM_UP_S + 0.5)
    cpu, began = cpu_seconds(process.pid), time.monotonic()
    time.sleep(max(0.2, seconds - 0.7))
    spent, lasted = cpu_seconds(process.pid), time.monotonic() - began
    got = made.figures(child)
    rate = got["requests"] / got["seconds"]
    per_1000 = None if cpu is None or spent is None or not rate else (spent - cpu) / (rate * lasted) * 1000
    return Measured(side, rate, per_1000, got["p50_ms"], got["p99_ms"], got["errors"])


def _rows(name: str, goal: int, measured: list[Measured]) -> list[Row]:
    mine = [one for one in measured if one.side == "provider"]
    base = [one for one in measured if one.side == "baseline"]
    bare = "bare responder" if name == "mock_provider" else "bare SDK client"
    rates = [one.rate for one in mine]
    ratios = [one.rate / other.rate for one, other in zip(mine, base, strict=True) if other.rate]
    errors = sum(one.errors for one in measured)
    return [
        Row(f"{name}, {IN_FLIGHT} in flight: {bare}, req/s", "", _spread([one.rate for one in base]), None),
        Row(f"{name}, {IN_FLIGHT} in flight: req/s", f">= {goal:,}", _spread(rates), median(rates) >= goal),
        Row(f"{name}: provider / {bare}", "", _spread(ratios, ".2f"), None),
        Row(
            f"{name}: CPU s per 1,000, provider | {bare}",
            "",
            " | ".join(_spread([one.cpu_per_1000 for one in side], ".3f") for side in (mine, base)),
            None,
        ),
        Row(f"{name}: p50 | p99, ms", "", " | ".join(_latencies(mine)), None),
        Row(f"{name}: error answers", "0", str(errors), errors == 0),
    ]


def _latencies(measured: list[Measured]) -> list[str]:
    return [
        _spread([one.p50_ms for one in measured], ".1f"),
        _spread([one.p99_ms for one in measured], ".1f"),
    ]


def _spread(values: list[Any], how: str = ",.0f") -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "not measured here"
    return " / ".join(format(value, how) for value in (min(known), median(known), max(known)))
