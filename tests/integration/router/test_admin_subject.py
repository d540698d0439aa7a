"""Two routers, asked over NATS by the command line: status, explain, isolate, reset."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamline_cli.main import main
from beamline_contract.objects import BrokenObject, Extension, parse_object
from beamline_contract.projection import extension_record, policy_record

from .conftest import PIPELINE, Served, Site, eventually, extension, open_site, policy, running

Captured = pytest.CaptureFixture[str]
Beamline = Callable[..., Any]


@pytest.fixture
async def site(own_nats: Any, database_url: str) -> AsyncIterator[Site]:
    """With a NATS of this test alone: every router on it answers."""
    async with open_site(own_nats.url, database_url) as opened:
        yield opened


@pytest.fixture
async def two(site: Site) -> AsyncIterator[tuple[Served, Served]]:
    async with AsyncExitStack() as stack:
        routers = [
            await stack.enter_async_context(running(site.settings(instance=name, poll_seconds=0.2)))
            for name in ("router-a", "router-b")
        ]
        yield routers[0], routers[1]


@pytest.fixture
def beamline(site: Site, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> Beamline:
    monkeypatch.delenv("NATS_URL", raising=False)

    async def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(main, [*arguments, "--nats-url", site.nats_url])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


async def test_isolate_holds_in_all_routers_through_a_reload_and_ends_with_reset(
    site: Site, two: tuple[Served, Served], beamline: Beamline
) -> None:
    assert (await two[0].route({"prompt": "x"})).status_code == 200
    code, out, err = await beamline("isolate", "echo")
    assert code == 0
    assert err == "warning: this is not in the audit log: no operator leads\n"
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["router-a", "echo", "isolated"],
        ["router-b", "echo", "isolated"],
    ]
    revision = await site.put(extension("echo", "provider", generation=2, timeout_ms=4_000), hint=False)
    await eventually(
        lambda: all(one.router.refresher.revision >= revision for one in two), "both have reloaded"
    )
    for one in two:
        assert (await one.route({"prompt": "x"})).status_code == 503
        assert one.router.runtime.breaker_states()["echo"] == "isolated"
        (delta,) = [one for one in one.router.telemetry.health() if one.extension_id == "echo"]
        assert delta.breaker == "isolated"
    code, out, _ = await beamline("reset", "echo", "-o", "json")
    assert code == 0
    assert [entry["breakers"]["echo"] for entry in json.loads(out)] == ["closed", "closed"]
    assert {one.router.runtime.breaker_states()["echo"] for one in two} == {"closed"}
    assert (await two[0].route({"prompt": "x"})).status_code == 200


async def test_one_router_alone_can_be_meant(two: tuple[Served, Served], beamline: Beamline) -> None:
    code, out, _ = await beamline("isolate", "echo", "--router", "router-b", "-o", "name")
    assert (code, out.split()) == (0, ["router-b"])
    states = [one.router.runtime.breaker_states().get("echo", "closed") for one in two]
    assert states == ["closed", "isolated"]


async def test_explain_live_is_what_the_routers_serve_now(
    site: Site, two: tuple[Served, Served], beamline: Beamline
) -> None:
    await beamline("isolate", "echo")
    code, out, _ = await beamline("explain", "hello", "--live", "-o", "json")
    assert code == 0
    found = json.loads(out)
    assert [entry["router"] for entry in found] == ["router-a", "router-b"]
    (provider,) = [step for step in found[0]["steps"] if step["action"] == "select_provider"]
    assert provider["providers"][0]["live"]["breaker"] == "isolated"
    code, out, _ = await beamline("explain", "hello", "--live")
    assert "breaker isolated, refuses calls" in out
    assert out.count("policy default") == 2
    assert not site.calls


MANIFESTS = """
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {name: a-1, namespace: default}
spec: {type: provider, timeoutMs: 900, retryBudget: {tokens: 3, threshold: 1}, stickyKey: tenant}
---
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {name: a-2, namespace: default}
spec: {type: provider, versionOf: a-1, version: v2, weight: 40}
---
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {name: b-1, namespace: default}
spec: {type: provider, concurrency: 3}
---
apiVersion: beamline.io/v1alpha1
kind: Extension
metadata: {name: check, namespace: default}
spec: {type: validator, failureMode: open}
---
apiVersion: beamline.io/v1alpha1
kind: RoutingPolicy
metadata: {name: chosen, namespace: default}
spec:
  match: {tenants: [acme], models: ["gpt-4*"]}
  steps:
    - {action: extension_validator, extensionRef: {name: check}, overlap: true, timeoutMs: 77}
    - action: select_provider
      strategy: sticky
      providers: [{extensionRef: {name: a-1}, weight: 3}, {extensionRef: {name: b-1}, weight: 1}]
      canary: {extensionRef: {name: b-1}, percent: 30, stickyKey: tenant}
      fallback: [{extensionRef: {name: nobody}}]
---
apiVersion: beamline.io/v1alpha1
kind: RoutingPolicy
metadata: {name: other, namespace: default}
spec:
  match: {models: [gpt-4o]}
  steps: [{action: select_provider, providers: [{extensionRef: {name: b-1}}]}]
"""


async def test_explain_from_the_manifests_says_what_routers_say_that_serve_them(
    site: Site, two: tuple[Served, Served], beamline: Beamline, tmp_path: Path
) -> None:
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    documents = list(yaml.safe_load_all(MANIFESTS))
    for number, one in enumerate(documents):
        one["metadata"] |= {"uid": f"u{number}", "generation": 1}
    objects = [parse_object(one) for one in documents]
    await site.remove(policy("default", PIPELINE))
    records = [
        extension_record(one) if isinstance(one, Extension) else policy_record(one)
        for one in objects
        if not isinstance(one, BrokenObject)
    ]
    assert len(records) == len(documents)
    revision = await site.put(*records)
    await eventually(lambda: two[0].router.refresher.revision >= revision, "it has reloaded")

    def bare(told: Any) -> Any:
        """Without what only a router can know."""
        if isinstance(told, dict):
            only_live = {"live", "revision", "router", "conflicted"}
            return {name: bare(value) for name, value in told.items() if name not in only_live}
        return [bare(one) for one in told] if isinstance(told, list) else told

    for tenant in ("acme", "b"):
        asked = ("explain", "hello", "--tenant", tenant, "--model", "gpt-4o", "-o", "json")
        _, offline, _ = await beamline(*asked, "--policies", str(tmp_path))
        _, live, _ = await beamline(*asked, "--live", "--router", "router-a")
        assert bare(json.loads(live)[0]) == bare(json.loads(offline))
        assert json.loads(offline)["policy"]["id"] == ("chosen" if tenant == "acme" else "other")


async def test_status_live_shows_every_router_its_breakers_and_the_hints_to_policies(
    site: Site, two: tuple[Served, Served], beamline: Beamline
) -> None:
    near = [{"action": "extension_pre", "extension_id": "lower"}] * 12 + PIPELINE[2:3]
    revision = await site.put(policy("long", near, match={"tenants": ["x"]}), hint=False)
    await eventually(
        lambda: all(one.router.refresher.revision >= revision for one in two), "both have reloaded"
    )
    await beamline("isolate", "mask")
    code, out, _ = await beamline("status", "--live")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:3]] == [
        ["router-a", "ready", str(revision)],
        ["router-b", "ready", str(revision)],
    ]
    assert "router-a  mask     isolated" in out
    assert "long: NearLimit: steps: 13 of at most 16" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(["isolate", "nobody"], 1, "NOT_FOUND: this router knows no extension", id="unknown"),
        pytest.param(["isolate", "a b"], 1, "INVALID_ARGUMENT: extension must be", id="no name"),
        pytest.param(
            ["explain", '{"prompt": 5}', "--live"], 1, "INVALID_ARGUMENT: prompt must be text", id="a number"
        ),
        pytest.param(
            ["explain", "x", "--live", "--policy", "none"], 1, "NOT_FOUND: no policy takes", id="no policy"
        ),
        pytest.param(
            ["status", "--live", "--router", "router-z", "--timeout", "0.3"],
            69,
            "router-z",
            id="no such router",
        ),
    ],
)
async def test_what_goes_wrong_is_a_sentence_and_an_exit_code(
    two: tuple[Served, Served], beamline: Beamline, arguments: list[str], code: int, words: str
) -> None:
    ended, _, err = await beamline(*arguments)
    assert (ended, words in err) == (code, True), err


async def test_without_any_router_it_says_so_at_once(beamline: Beamline) -> None:
    code, _, err = await beamline("isolate", "echo", "--timeout", "30")
    assert code == 69
    assert "no router answered" in err


async def test_trace_shows_where_a_request_went_in_which_router_and_why(
    two: tuple[Served, Served], beamline: Beamline
) -> None:
    answer = await two[1].route({"prompt": "a secret word"})
    request_id = answer.json()["request_id"]
    code, out, _ = await beamline("trace", request_id)
    assert code == 0
    assert f"request {request_id}" in out
    assert "router router-b, door http" in out
    assert "answered by echo (ordered)" in out
    assert [line.split()[0] for line in out.splitlines() if "|" in line] == [
        step["step"] for step in answer.json()["steps"]
    ]
    assert "=" in out
    assert "secret" not in out
    code, out, _ = await beamline("trace", request_id, "-o", "json")
    found = json.loads(out)
    assert (code, found["instance"], found["status"]) == (0, "router-b", "ok")
    starts = [step["start_ms"] for step in found["steps"]]
    assert starts == sorted(starts)


async def test_trace_says_at_which_step_a_request_failed(
    two: tuple[Served, Served], beamline: Beamline
) -> None:
    await beamline("isolate", "echo")
    answer = await two[0].route({"prompt": "x"})
    code, out, _ = await beamline("trace", answer.json()["error"]["request_id"])
    assert code == 0
    assert "error UNAVAILABLE at step provider (echo)" in out
    assert "breaker isolated" in out


@pytest.mark.parametrize(
    ("request_id", "words"),
    [
        pytest.param(
            "nobody-knows-it", "no router knows the request nobody-knows-it (2 routers asked)", id="unknown"
        ),
        pytest.param("a b", "INVALID_ARGUMENT: request_id must be the id of a request", id="no id"),
    ],
)
async def test_trace_of_what_no_router_knows_is_a_sentence_and_exit_code_1(
    two: tuple[Served, Served], beamline: Beamline, request_id: str, words: str
) -> None:
    code, out, err = await beamline("trace", request_id)
    assert (code, out) == (1, "")
    assert words in err
