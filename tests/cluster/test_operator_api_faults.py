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
from operatorbench import WORKLOAD, Bench

from beamline_operator.edges.lease import RENEW_S, RETRY_S

FAULT_S = 2.2
BEYOND_THE_LEASE_S = RENEW_S + RETRY_S + 0.5
"""So long that the leader's term ends."""
WITHIN_S = 5.0
"""From the end of the fault. Measured: at most 2.4."""
A_SECOND = 0.95
PAGE = b"<html><body><h1>504 Gateway Time-out</h1></body></html>\n"


def is_watch(request: kmock.Request) -> bool:
    return request.params.get("watch") == "true"


def answers(code: int, reason: str, **headers: str) -> Callable[[kmock.Request], Any]:
    return lambda request: status(code, reason, **headers)


def conflicts(request: kmock.Request) -> Any:
    return None if request.method == kmock.method.GET else status(409, "Conflict")


def told(code: int, reason: str) -> Callable[[kmock.Request], Any]:
    """An error inside every watch."""

    async def stream() -> AsyncIterator[bytes]:
        error = {"kind": "Status", "code": code, "reason": reason, "message": "scripted"}
        yield json.dumps({"type": "ERROR", "object": error}).encode() + b"\n"

    return lambda request: kmock.Response(status=200, payload=stream()) if is_watch(request) else None


def expired_at_once(request: kmock.Request) -> Any:
    """As the answer itself: so do some servers, and every one for a page of a list."""
    collections = ("extensions", "routingpolicies", "deployments", "services")
    listed = request.url.path.endswith(collections)
    return status(410, "Expired") if request.method == kmock.method.GET and listed else None


def dropped(request: kmock.Request) -> Any:
    async def stream() -> AsyncIterator[bytes]:
        yield b'{"type":"MODI'

    return kmock.Response(status=200, payload=stream()) if is_watch(request) else None


def page_in_every_watch(request: kmock.Request) -> Any:
    """What a proxy says when it has lost the server behind it, after the headers have gone out."""

    async def stream() -> AsyncIterator[bytes]:
        yield PAGE

    return kmock.Response(status=200, payload=stream()) if is_watch(request) else None


def page_for_everything(request: kmock.Request) -> Any:
    """A proxy that wants a login says so with a 200."""
    return kmock.Response(status=200, headers={"Content-Type": "text/html"}, payload=PAGE)


def json_for_everything(request: kmock.Request) -> Any:
    """The same of one that speaks JSON."""
    return kmock.Response(status=200, payload={"error": "log in", "login": "https://proxy.example"})


@pytest.fixture
async def faulty(bench: Bench) -> AsyncIterator[FaultyApi]:
    async with FaultyApi(Path(bench.settings["kubeconfig"])) as server:
        yield server


def gaps(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


async def settled(faulty: FaultyApi) -> bool:
    """Whether Extensions were listed by the operator, by kopf, and by the operator again."""
    lists = [seen for seen in faulty.seen if seen.request.url.path.endswith("/extensions")]
    return sum(seen.request.action is kmock.action.LIST for seen in lists) >= 3


async def synced(bench: Bench, name: str) -> bool:
    return (await bench.condition("Extension", name, "Synced")).get("status") == "True"


@pytest.mark.parametrize(
    "outage",
    [
        pytest.param(
            (answers(429, "TooManyRequests", **{"Retry-After": "30"}), FAULT_S),
            id="429 with a long Retry-After",
        ),
        pytest.param((answers(500, "InternalError"), FAULT_S), id="500"),
        pytest.param((answers(503, "ServiceUnavailable"), FAULT_S), id="503"),
        pytest.param((answers(503, "ServiceUnavailable"), BEYOND_THE_LEASE_S), id="503 beyond the Lease"),
        pytest.param((conflicts, FAULT_S), id="409 on every write"),
        pytest.param((told(410, "Expired"), FAULT_S), id="410 on every watch"),
        pytest.param((told(500, "InternalError"), FAULT_S), id="500 inside every watch"),
        pytest.param((expired_at_once, FAULT_S), id="410 to every list and watch"),
        pytest.param((answers(409, "Conflict"), FAULT_S), id="409 to everything"),
        pytest.param((dropped, FAULT_S), id="every watch is dropped in the middle of a line"),
        pytest.param((page_in_every_watch, FAULT_S), id="a proxy's page inside every watch"),
        pytest.param((page_for_everything, FAULT_S), id="a proxy's page for everything"),
        pytest.param((page_for_everything, BEYOND_THE_LEASE_S), id="a proxy's page beyond the Lease"),
        pytest.param((json_for_everything, BEYOND_THE_LEASE_S), id="a proxy's JSON beyond the Lease"),
    ],
)
async def test_it_asks_once_a_second_at_most_and_is_done_soon_after(
    faulty: FaultyApi,
    bench: Bench,
    tmp_path: Path,
    outage: tuple[Callable[[kmock.Request], Any], float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault, lasts_s = outage
    login = faulty.kubeconfig(tmp_path / "kubeconfig")
    await bench.start(kubeconfig=login, lease_retry_s=RETRY_S)
    await bench.extension("before")
    await bench.wait("Extension", "before", "Synced", "True")
    await bench.until(lambda: bench.get("Service", "before"), "its Service")
    if fault is expired_at_once:  # the operator lists everything soon after its start, too, and kopf does now
        await bench.until(lambda: settled(faulty), "the lists of the start")
    faulty.fault = fault
    faulty.cut()
    began = time.monotonic()
    await bench.extension("before", timeoutMs=77)
    await bench.delete("Service", "before")  # a deletion that no list tells of
    await bench.extension("during", workload=None)
    await asyncio.sleep(lasts_s)
    faulty.fault, ended = None, time.monotonic()
    for name in ("before", "during"):
        await bench.until(lambda name=name: synced(bench, name), f"{name} synced")
    await bench.until(lambda: bench.get("Service", "before"), "its Service again")
    took = time.monotonic() - ended
    told = capsys.readouterr().out
    print(f"done {took:.1f} s after the end")  # for who measures: pytest -rP
    assert took < WITHIN_S
    assert (await bench.rows())["before"].timeout_ms == 77
    refused = faulty.refused()
    for path, moments in refused.items():
        assert all(gap >= A_SECOND for gap in gaps(moments)), (path, gaps(moments))
    watches: dict[str, list[float]] = {}
    for seen in faulty.seen:
        if is_watch(seen.request) and began < seen.at < ended:
            watches.setdefault(seen.request.url.path, []).append(seen.at)
    assert refused or watches, "the fault was met"
    for path, moments in watches.items():
        assert all(gap >= A_SECOND for gap in gaps(moments)), (path, gaps(moments))
    assert "watch.failed" not in told, "no fault of a list or a watch ends the leader's term"
    await bench.extension("after", workload=None)
    await bench.until(lambda: synced(bench, "after"), "a watch that sees on", seconds=WITHIN_S)
    assert "watch.failed" not in capsys.readouterr().out


async def test_a_watch_that_fell_silent_is_opened_again(
    faulty: FaultyApi, bench: Bench, tmp_path: Path
) -> None:
    await bench.start(kubeconfig=faulty.kubeconfig(tmp_path / "kubeconfig"))
    await bench.extension("before", workload=None)
    await bench.wait("Extension", "before", "Synced", "True")
    path = f"/api/v1/namespaces/{bench.namespace}/configmaps/settings"
    labels = {"beamline.io/roll": "true"}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "labels": labels}}
    reads = {**WORKLOAD, "envFrom": [{"configMapRef": {"name": "settings"}}]}
    await bench.api.apply(path, {**settings, "data": {"a": "1"}}, field_manager="test")
    await bench.extension("reader", workload=reads)
    before = await bench.until(lambda: bench.get("Deployment", "reader"), "its Deployment")
    await bench.until(lambda: bench.get("Service", "reader"), "its Service")
    faulty.mute()
    muted = time.monotonic()
    await bench.extension("during", workload=None)
    await bench.delete("Extension", "before")
    await bench.delete("Service", "reader")
    await bench.api.apply(path, {**settings, "data": {"a": "2"}}, field_manager="test")

    async def rolled() -> bool:
        found = await bench.get("Deployment", "reader")
        return found is not None and found["spec"]["template"] != before["spec"]["template"]

    await bench.wait("Extension", "during", "Synced", "True")
    await bench.gone("Extension", "before")
    await bench.until(lambda: bench.get("Service", "reader"), "its Service again")
    await bench.until(rolled, "new pods")
    took = time.monotonic() - muted
    print(f"done {took:.1f} s after the watches fell silent")
    assert took < WITHIN_S
    assert sorted(await bench.audit()) == [
        ("before", "created"), ("before", "deleted"), ("during", "created"), ("reader", "created"),
    ]  # fmt: skip
