"""Row "chat": ``POST /v1/chat/completions`` through pre, validator, provider, post, beside LiteLLM's proxy.

LiteLLM, the newest on PyPI, lives in a virtual environment of its own under the user's cache and is set up as
its documentation advises for load tests (production mode, errors logged only, no database). It calls a local
upstream. That upstream called directly is one floor; the other is an HTTP door without any feature that asks
the same four steps through nats-py (:mod:`bench.bare_chain`). Both products get all cores and the same client
and body, and check a key. One router stands beside one worker of LiteLLM, two routers beside two. CPU is that
of the whole product: for Beamline its routers, NATS and the four steps; for LiteLLM all its processes. Sides
take turns within each round.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from bench.parts import Parts, Row, cpu_seconds, parts, per_1000, resident_mb, spread, tree
from bench.world import GUARD, POST, PRE, PROVIDER, RouterProcess, World, router, world

STEPS = (PRE, GUARD, PROVIDER, POST)
MODEL = "bench"
WORKERS = (1, 2)
"""Processes of either product: routers, LiteLLM's workers."""
IN_FLIGHT = 64
PACED_RATE = 25
WARM_UP_S = 1.0
START_LIMIT_S = 120.0
CHAIN = "bare chain"
GOAL_RATE, GOAL_CPU, GOAL_P99 = 40.0, 40.0, 10.0
PATH = "/v1/chat/completions"
CHAT = {
    "model": MODEL,
    "temperature": 0.7,
    "max_tokens": 256,
    "messages": [
        {"role": "system", "content": "You answer questions about a message router, with sources. " * 4},
        {"role": "user", "content": "How does a half-open breaker decide to close, and what is jitter? " * 4},
        {"role": "assistant", "content": "It lets a limited number of trial calls through."},
        {"role": "user", "content": "And what happens to the calls that come while a trial is under way?"},
    ],
}


@dataclass(frozen=True)
class Side:
    """A server under load. ``pids`` are the roots of all the processes that make up the product."""

    name: str
    ports: tuple[int, ...]
    headers: tuple[str, ...]
    pids: tuple[int, ...]

    def processes(self) -> set[int]:
        return {one for pid in self.pids for one in tree(pid)}

    def cpu(self) -> float:
        return sum(cpu_seconds(pid) or 0.0 for pid in self.processes())

    def memory_mb(self) -> float:
        return sum(resident_mb(pid) for pid in self.processes())


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    python = litellm_python()
    measured: list[dict[str, Any]] = []
    with parts(pin=False) as made, world(made, STEPS) as around:
        routers = [router(made, around, name=f"router-{number}") for number in range(max(WORKERS))]
        direct, chain = _upstream(made), _chain(made, around)
        mine = [_beamline(routers[:processes], around) for processes in WORKERS]
        for number in range(rounds):
            measured += [_measure(made, side, seconds, number) for side in (direct, chain, *mine)]
            for workers in WORKERS:
                with _litellm(made, python, direct.ports[0], workers) as theirs:
                    measured.append(_measure(made, theirs, max(seconds, 5.0), number))
    version = subprocess.run(
        [python, "-c", "import importlib.metadata as m; print(m.version('litellm'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    return _rows(measured, version), {"rounds": measured, "litellm": version}


def litellm_python() -> Path:
    """The interpreter of LiteLLM's own environment, made or brought up to date now."""
    folder = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beamline" / "bench" / "litellm"
    )
    uv = [sys.executable, "-m", "uv"]
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    subprocess.run(
        [*uv, "pip", "install", "--quiet", "--upgrade", "--python", python, "litellm[proxy]"], check=True
    )
    return python


def _upstream(made: Parts) -> Side:
    child = made.module("bench.model_api", stdout=subprocess.PIPE)
    assert child.stdout is not None
    return Side("upstream directly", (int(child.stdout.readline()),), (), (child.pid,))


def _chain(made: Parts, around: World) -> Side:
    subjects = [step.subject for step in STEPS]
    child = made.module("bench.bare_chain", around.nats_url, *subjects, stdout=subprocess.PIPE)
    assert child.stdout is not None
    return Side(CHAIN, (int(child.stdout.readline()),), (), (child.pid, *around.pids))


def _beamline(routers: list[RouterProcess], around: World) -> Side:
    pids = tuple(one.pid for one in routers)
    return Side(_named("beamline", len(routers)), tuple(one.port for one in routers), (), pids + around.pids)


def _named(product: str, processes: int) -> str:
    word = "router" if product == "beamline" else "worker"
    return f"{product}, {processes} {word}{'s' * (processes > 1)}"


@contextmanager
def _litellm(made: Parts, python: Path, upstream: int, workers: int) -> Iterator[Side]:
    key = "sk-" + secrets.token_hex(16)
    config = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": "openai/gpt-4o-mini",
                    "api_base": f"http://127.0.0.1:{upstream}/v1",
                    "api_key": "sk-upstream",
                },
            }
        ],
        "litellm_settings": {"num_retries": 0, "request_timeout": 30, "set_verbose": False},
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }
    file = made.folder / "litellm.yaml"
    file.write_bytes(orjson.dumps(config))  # JSON is YAML too
    env = {
        **os.environ,
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    port = _free_port()
    command = [
        python.parent / "litellm",
        "--config",
        file,
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--num_workers",
        workers,
    ]
    with (made.folder / "litellm.log").open("ab") as log:
        child = made.start(
            [str(word) for word in command], env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    side = Side(
        _named("litellm", workers),
        (port,),
        (f"authorization: Bearer {key}",),
        (child.pid,),
    )
    try:
        _wait_for_answer(side)
        yield side
    finally:
        pids = side.processes()
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
        for pid in pids:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for_answer(side: Side) -> None:
    headers = dict(header.split(": ", 1) for header in side.headers) | {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{side.ports[0]}{PATH}", orjson.dumps(CHAT), headers)
    give_up = time.monotonic() + START_LIMIT_S
    while time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
                return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{side.name} did not answer within {START_LIMIT_S:.0f} s")


def _measure(made: Parts, side: Side, seconds: float, number: int) -> dict[str, Any]:
    before = side.cpu()
    closed = _load(made, side, 0, seconds)
    cpu = side.cpu() - before
    _drain(side)
    paced = _load(made, side, PACED_RATE, max(seconds, 8.0))
    # The load's own warm-up is in the CPU time too, so it has to be in the count.
    answers = closed["requests"] + closed["refused"]
    requests = answers / closed["seconds"] * (closed["seconds"] + WARM_UP_S)
    return {
        "side": side.name,
        "round": number,
        "rate": closed["requests"] / closed["seconds"],
        "cpu_per_1000": per_1000(cpu, requests),
        "p99_ms_at_25": paced["p99_ms"],
        "p50_ms_at_25": paced["p50_ms"],
        "errors": closed["errors"] + paced["errors"],
        "refused": closed["refused"] + paced["refused"],
        "memory_mb": side.memory_mb(),
    }


def _load(made: Parts, side: Side, rate: int, seconds: float) -> dict[str, Any]:
    child = made.module(
        "bench.http_load",
        ",".join(map(str, side.ports)),
        *(PATH, IN_FLIGHT, rate, WARM_UP_S, seconds, orjson.dumps(CHAT).decode(), *side.headers),
        stdout=subprocess.PIPE,
    )
    return made.figures(child)


def _drain(side: Side) -> None:
    """Waits until what was let in is finished, so that the next measurement starts from rest."""
    for _ in range(40):
        before = side.cpu()
        time.sleep(0.25)
        if side.cpu() - before < 0.04:
            return


def _rows(measured: list[dict[str, Any]], version: str) -> list[Row]:
    def of(side: str, field: str) -> list[float]:
        return [one[field] for one in measured if one["side"] == side]

    rows = []
    for side in dict.fromkeys(one["side"] for one in measured):
        label = side.replace("litellm", f"LiteLLM {version}")
        rows += [
            Row(f"{label}: req/s, {IN_FLIGHT} in flight", "", spread(of(side, "rate")), None),
            Row(f"{label}: CPU s per 1,000", "", spread(of(side, "cpu_per_1000"), ".3f"), None),
            Row(f"{label}: p50 | p99 ms at {PACED_RATE} req/s", "",
                " | ".join(spread(of(side, f"{which}_ms_at_25"), ".1f") for which in ("p50", "p99")), None),
            Row(f"{label}: resident MB, all processes", "", spread(of(side, "memory_mb")), None),
        ]  # fmt: skip
    for processes in WORKERS:
        ours, theirs = _named("beamline", processes), _named("litellm", processes)
        label = theirs.replace("litellm", "LiteLLM")
        for what, goal, values in (
            (f"req/s: {ours} / {label}", GOAL_RATE, _ratios(of(ours, "rate"), of(theirs, "rate"))),
            (f"CPU per request: {label} / {ours}", GOAL_CPU,
             _ratios(of(theirs, "cpu_per_1000"), of(ours, "cpu_per_1000"))),
            (f"p99 at {PACED_RATE} req/s: {label} / {ours}", GOAL_P99,
             _ratios(of(theirs, "p99_ms_at_25"), of(ours, "p99_ms_at_25"))),
        ):  # fmt: skip
            rows.append(Row(what, f">= {goal:g}", spread(values, ".1f"), median(values) >= goal))
        floor = _ratios(of(theirs, "p99_ms_at_25"), of(CHAIN, "p99_ms_at_25"))
        rows.append(Row(f"p99 at {PACED_RATE} req/s: {label} / {CHAIN}", "", spread(floor, ".1f"), None))
    errors = sum(one["errors"] for one in measured)
    rows.append(Row("answers other than 200 and 429", "0", str(errors), errors == 0))
    rows.append(Row("refused with 429", "", str(sum(one["refused"] for one in measured)), None))
    return rows


def _ratios(over: list[float], under: list[float]) -> list[float]:
    return [one / other for one, other in zip(over, under, strict=True)]
