"""Faults of the API server, scripted by kmock in front of a real one: what the operator asks meanwhile, and
how soon it is done once they end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import kmock
import pytest
from faultyapi import FaultyApi, status
from operatorbench import Bench

FAULT_S = 2.2
WITHIN_S = 5.0
SLACK = 2.0
"""The machine that runs the tests may be busy."""
A_SECOND = 0.95


def is_watch(request: kmock.Request) -> bool:
    return request.params.get("watch") == "true"


def answers(code: int, reason: str, **headers: str) -> Callable[[kmock.Request], Any]:
    return lambda request: status(code, reason, **headers)


def conflicts(request: kmock.Request) -> Any:
    return None if request.method == kmock.method.GET else status(409, "Conflict")


def expired(request: kmock.Request) -> Any:
    async def stream() -> AsyncIterator[bytes]:
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        yield json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"

    return stream() if is_watch(request) else None


def dropped(request: kmock.Request) -> Any:
    async def stream() -> AsyncIterator[bytes]:
        yield b""

    return stream() if is_watch(request) else None


@pytest.fixture
async def faulty(bench: Bench) -> AsyncIterator[FaultyApi]:
    async with FaultyApi(Path(bench.settings["kubeconfig"])) as server:
        yield server


def gaps(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


async def synced(bench: Bench, name: str) -> bool:
    return (await bench.condition("Extension", name, "Synced")).get("status") == "True"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(answers(429, "TooManyRequests", **{"Retry-After": "1"}), id="429 with Retry-After"),
        pytest.param(answers(500, "InternalError"), id="500"),
        pytest.param(answers(503, "ServiceUnavailable"), id="503"),
        pytest.param(conflicts, id="409 on every write"),
        pytest.param(expired, id="410 on every watch"),
        pytest.param(dropped, id="every watch is dropped"),
    ],
)
async def test_it_asks_once_a_second_at_most_and_is_done_soon_after(
    faulty: FaultyApi, bench: Bench, tmp_path: Path, fault: Callable[[kmock.Request], Any]
) -> None:
    login = faulty.kubeconfig(tmp_path / "kubeconfig")
    await bench.start(kubeconfig=login, lease_retry_s=2.0, watch_silence_s=2.0)
    await bench.extension("before", workload=None)
    await bench.wait("Extension", "before", "Synced", "True")
    faulty.fault = fault
    faulty.cut()
    began = time.monotonic()
    await bench.extension("before", workload=None, timeoutMs=77)
    await bench.extension("during", workload=None)
    await asyncio.sleep(FAULT_S)
    faulty.fault, ended = None, time.monotonic()
    for name in ("before", "during"):
        await bench.until(lambda name=name: synced(bench, name), f"{name} synced")
    assert time.monotonic() - ended < WITHIN_S * SLACK
    assert (await bench.rows())["before"].timeout_ms == 77
    refused = {path: moments for path, moments in faulty.refused().items() if "/leases/" not in path}
    for path, moments in refused.items():
        assert all(gap >= A_SECOND for gap in gaps(moments)), (path, gaps(moments))
    watches: dict[str, list[float]] = {}
    for seen in faulty.seen:
        if is_watch(seen.request) and began < seen.at < ended:
            watches.setdefault(seen.request.url.path, []).append(seen.at)
    assert refused or watches, "the fault was met"
    for path, moments in watches.items():
        assert all(gap >= A_SECOND for gap in gaps(moments)), (path, gaps(moments))


async def test_a_watch_that_fell_silent_is_opened_again(
    faulty: FaultyApi, bench: Bench, tmp_path: Path
) -> None:
    await bench.start(kubeconfig=faulty.kubeconfig(tmp_path / "kubeconfig"), watch_silence_s=2.0)
    await bench.extension("before", workload=None)
    await bench.wait("Extension", "before", "Synced", "True")
    faulty.mute()
    await bench.extension("during", workload=None)
    await bench.delete("Extension", "before")
    await bench.wait("Extension", "during", "Synced", "True")
    await bench.gone("Extension", "before")
    assert sorted(await bench.audit()) == [
        ("before", "created"), ("before", "deleted"), ("during", "created"),
    ]  # fmt: skip
