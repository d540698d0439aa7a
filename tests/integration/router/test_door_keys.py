"""Keys and limits at both doors, with real sockets, files and NATS."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import yaml

from beamline_contract.names import SUBJECT_INVOKE
from beamline_router.app import StartError, run
from beamline_router.core.api_keys import new_key

from .conftest import PATIENCE, PIPELINE, RouterProcess, Served, Site, eventually, extension, policy, running


def entry(tenant: str = "acme", environment: str | None = None, **more: Any) -> tuple[str, dict[str, Any]]:
    key, made = new_key(tenant, environment, None, secrets.token_bytes)
    return key, {**made, **more}


def keyed(path: Path, *entries: dict[str, Any]) -> Path:
    aside = path.with_suffix(".new")
    aside.write_text(yaml.safe_dump({"keys": list(entries)}))
    aside.replace(path)
    return path


def broken(path: Path, content: str) -> None:
    path.write_text(content)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


TALK = [{"action": "select_provider", "provider_id": "talk"}]


async def talking(site: Site, *policies: Any) -> list[dict[str, Any]]:
    """A provider that answers prompts and messages alike; returns what it will have been asked."""
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"output": "x"}

    await site.put(extension("talk", "provider"), *policies)
    await site.respond(site.nc, "talk", "beamline.provider.talk.v1", answer)
    return asked


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def over_nats(site: Site, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    reply = await site.nc.request(SUBJECT_INVOKE, orjson.dumps(body), timeout=10, headers=headers or None)
    found: dict[str, Any] = orjson.loads(reply.data)
    return found


async def test_a_key_decides_the_tenant_and_the_environment_at_every_path(site: Site, keys: Path) -> None:
    good, stored = entry("acme", "prod")
    only = {"tenants": ["acme"], "environments": ["prod"], "models": ["m-acme"]}
    await talking(site, policy("acme", TALK, match=only))
    async with running(site.settings(api_keys=keyed(keys, stored))) as served:
        body = {"prompt": "x", "model": "m-acme"}
        assert (await served.route(body, **bearer(good))).json()["policy"] == "acme"
        assert (await served.route(body, **{"x-api-key": good})).json()["policy"] == "acme"
        chat = {"model": "m-acme", "messages": [{"role": "user", "content": "x"}]}
        reply = await served.http.post("/v1/chat/completions", json=chat, headers=bearer(good))
        models = await served.http.get("/v1/models", headers=bearer(good))
        assert (await over_nats(site, body, **{"X-Api-Key": good}))["policy"] == "acme"
        assert (await over_nats(site, body))["policy"] == "default"
    assert reply.headers["x-beamline-policy"] == "acme"
    assert reply.headers["x-beamline-tenant"] == "acme"
    assert [model["id"] for model in models.json()["data"]] == ["m-acme"]


UNKNOWN = "Bearer blm_000000000000_" + "0" * 64
WRONG: list[Any] = [
    pytest.param({}, 401, "UNAUTHENTICATED", id="no key"),
    pytest.param({"authorization": UNKNOWN}, 401, "UNAUTHENTICATED", id="unknown"),
    pytest.param({"authorization": "Basic Zm9vOmJhcg=="}, 401, "UNAUTHENTICATED", id="another scheme"),
]


@pytest.mark.parametrize(("headers", "status", "code"), WRONG)
async def test_without_a_good_key_nobody_gets_in_not_even_from_here(
    site: Site, keys: Path, headers: dict[str, str], status: int, code: str
) -> None:
    async with running(site.settings(api_keys=keyed(keys, entry()[1]))) as served:
        routed = await served.route({"prompt": "x"}, **headers)
        chat = await served.http.post("/v1/chat/completions", content=b"{", headers=headers)
        models = await served.http.get("/v1/models", headers=headers)
    assert (routed.status_code, routed.json()["error"]["code"]) == (status, code)
    assert routed.headers["www-authenticate"] == "Bearer"
    for reply in (chat, models):
        assert (reply.status_code, reply.headers["www-authenticate"]) == (status, "Bearer")
        assert reply.json()["error"]["type"] == "authentication_error"
        assert reply.json()["error"]["code"] == "invalid_api_key"
    assert not site.calls


@pytest.mark.parametrize(
    ("field", "named"), [("tenant_id", "other"), ("environment", "dev")], ids=["a tenant", "an environment"]
)
async def test_who_names_another_is_denied_and_who_names_their_own_is_not(
    site: Site, keys: Path, field: str, named: str
) -> None:
    good, stored = entry("acme", "prod")
    header = {"tenant_id": "x-beamline-tenant", "environment": "x-beamline-environment"}[field]
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    async with running(site.settings(api_keys=keyed(keys, stored))) as served:
        own = await served.route({"prompt": "x", "tenant_id": "acme", "environment": "prod"}, **bearer(good))
        routed = await served.route({"prompt": "x", field: named}, **bearer(good))
        denied = {**bearer(good), header: named}
        chatted = await served.http.post("/v1/chat/completions", json=chat, headers=denied)
        models = await served.http.get("/v1/models", headers=denied)
        asked = await over_nats(site, {"prompt": "x", field: named}, Authorization=f"Bearer {good}")
    assert own.status_code == 200
    assert routed.status_code == chatted.status_code == models.status_code == 403
    assert routed.json()["error"]["details"] == {"field": field}
    assert chatted.json()["error"]["code"] == models.json()["error"]["code"] == "permission_denied"
    assert asked["error"]["code"] == "PERMISSION_DENIED"


async def test_a_key_can_not_name_a_policy_of_another_tenant(site: Site, keys: Path) -> None:
    good, stored = entry("acme")
    await site.put(policy("theirs", PIPELINE[2:3], match={"tenants": ["other"]}))
    async with running(site.settings(api_keys=keyed(keys, stored))) as served:
        hidden = await served.route({"prompt": "x", "policy": "theirs"}, **bearer(good))
        absent = await served.route({"prompt": "x", "policy": "nowhere"}, **bearer(good))
        open_to_all = await served.route({"prompt": "x", "policy": "default"}, **bearer(good))
    assert hidden.status_code == absent.status_code == 404
    assert hidden.json()["error"]["message"] == absent.json()["error"]["message"]
    assert open_to_all.status_code == 200


async def test_the_file_is_reread_without_a_restart_and_a_fault_in_it_locks_nobody_out(
    site: Site, keys: Path
) -> None:
    (old, old_entry), (new, new_entry) = entry(), entry()
    async with running(site.settings(api_keys=keyed(keys, old_entry))) as served:

        async def answers(key: str, status: int) -> bool:
            return (await served.route({"prompt": "x"}, **bearer(key))).status_code == status

        assert await answers(new, 401)
        keyed(keys, old_entry, new_entry)
        await eventually(lambda: answers(new, 200), "the new key is good")
        assert await answers(old, 200)
        keyed(keys, new_entry)
        await eventually(lambda: answers(old, 401), "the old key is not good any more")
        broken(keys, "keys: [")
        await asyncio.sleep(1.2)
        assert await answers(new, 200)


def _own_address() -> str | None:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        found = str(probe.getsockname()[0])
    return None if found.startswith(("127.", "0.")) else found


async def _statuses(served: Served, host: str) -> list[int]:
    url = served.router.http_url.replace("0.0.0.0", host)
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        chat = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        replies = [
            await http.post("/v1/route", json={"prompt": "x"}),
            await http.post("/v1/chat/completions", json=chat),
            await http.get("/v1/models"),
        ]
        if replies[0].status_code == 401:
            assert "beamline keys new" in replies[0].json()["error"]["message"]
            assert replies[1].json()["error"]["code"] == "invalid_api_key"
        assert (await http.get("/healthz")).status_code == 200
    return [reply.status_code for reply in replies]


async def test_without_any_key_only_callers_on_this_machine_are_served(site: Site) -> None:
    await talking(site, policy("m", TALK, match={"models": ["m"]}))
    outside = _own_address()
    if outside is None:
        pytest.skip("this machine has no address but loopback, so nobody can come from outside")
    async with running(site.settings(http_host="0.0.0.0")) as served:
        assert await _statuses(served, "127.0.0.1") == [200, 200, 200]
        assert await _statuses(served, outside) == [401, 401, 401]
    async with running(site.settings(http_host="0.0.0.0", anonymous=True)) as served:
        assert await _statuses(served, outside) == [200, 200, 200]


async def test_what_a_proxy_on_this_machine_passes_on_comes_from_elsewhere(site: Site) -> None:
    async with running(site.settings()) as served:
        plain = await served.route({"prompt": "x"})
        passed_on = await served.route({"prompt": "x"}, **{"x-forwarded-for": "127.0.0.1"})
    assert (plain.status_code, passed_on.status_code) == (200, 401)


STRANGERS: list[Any] = [
    pytest.param({"origin": "https://evil.example"}, id="a page"),
    pytest.param({"origin": "http://203.0.113.7:8080"}, id="a page of an address"),
    pytest.param({"origin": "http://localhost.evil.example"}, id="a page with a name that begins well"),
    pytest.param({"origin": "null"}, id="a page in a sandbox"),
    pytest.param({"host": "evil.example:8080"}, id="a name that leads here"),
    pytest.param({"host": "127.0.0.1.evil.example"}, id="a name that looks like an address"),
    pytest.param({"host": "[what]"}, id="no name at all"),
    pytest.param({"x-forwarded-proto": "https"}, id="a proxy that says only how"),
    pytest.param({"via": "1.1 varnish"}, id="a proxy by its name"),
]
OURS: list[Any] = [
    pytest.param({"origin": "http://localhost:3000"}, id="our page"),
    pytest.param({"origin": "http://127.0.0.1:8080"}, id="our page by address"),
    pytest.param({"origin": "http://[::1]:8080"}, id="our page by address of version 6"),
    pytest.param({"host": "LOCALHOST.:8080"}, id="localhost in full"),
    pytest.param({"host": "[::1]:8080"}, id="an address of version 6"),
    pytest.param({"host": "host.docker.internal:8080"}, id="a name that is not public"),
    pytest.param({"host": "router"}, id="a name without a dot"),
]


@pytest.mark.parametrize("headers", STRANGERS)
async def test_without_any_key_nobody_is_served_through_a_browser_or_proxy_of_this_machine(
    site: Site, keys: Path, headers: dict[str, str]
) -> None:
    key, kept = entry()
    async with running(site.settings()) as served:
        refused = [
            await served.route({"prompt": "x"}, **headers),
            await served.http.get("/v1/models", headers=headers),
        ]
    assert [reply.status_code for reply in refused] == [401, 401]
    assert not site.calls
    async with running(site.settings(api_keys=keyed(keys, kept))) as served:
        assert (await served.route({"prompt": "x"}, **headers, **bearer(key))).status_code == 200


@pytest.mark.parametrize("headers", OURS)
async def test_without_any_key_whoever_is_here_is_served(site: Site, headers: dict[str, str]) -> None:
    async with running(site.settings()) as served:
        assert (await served.route({"prompt": "x"}, **headers)).status_code == 200


async def test_over_nats_a_wrong_key_is_refused_and_a_missing_one_only_where_keys_are_required(
    site: Site, keys: Path
) -> None:
    path = keyed(keys, entry()[1])
    async with running(site.settings(api_keys=path)):
        assert "error" not in await over_nats(site, {"prompt": "x"})
        wrong = await over_nats(site, {"prompt": "x"}, Authorization="Bearer no")
    assert wrong["error"]["code"] == "UNAUTHENTICATED"
    async with running(site.settings(api_keys=path, nats_keys="required")):
        assert (await over_nats(site, {"prompt": "x"}))["error"]["code"] == "UNAUTHENTICATED"
    async with running(site.settings(api_keys=keyed(keys), nats_keys="required")):
        withdrawn = await over_nats(site, {"prompt": "x"})
    assert withdrawn["error"]["code"] == "UNAUTHENTICATED", "the last key taken away opens no door"


async def test_above_its_rate_a_tenant_is_told_when_to_come_back_at_both_doors(
    site: Site, tmp_path: Path
) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("tenants: {acme: {requestsPerSecond: 0.01, burst: 2}}")
    acme = {"prompt": "x", "tenant_id": "acme"}
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    async with running(site.settings(limits_file=limits)) as served:
        first = [(await served.route(acme)).status_code, "error" in await over_nats(site, acme)]
        over_http = await served.route(acme)
        over_chat = await served.http.post(
            "/v1/chat/completions", json=chat, headers={"x-beamline-tenant": "acme"}
        )
        asked = await over_nats(site, acme)
        other = await served.route({"prompt": "x", "tenant_id": "other"})
        metrics = (await served.http.get("/metrics")).text
    assert first == [200, False]
    assert over_http.status_code == over_chat.status_code == 429
    assert 90 <= int(over_http.headers["retry-after"]) <= 100
    assert over_chat.json()["error"]["code"] == "rate_limit_exceeded"
    assert asked["error"]["code"] == "RESOURCE_EXHAUSTED"
    assert asked["error"]["retry_after_ms"] > 90_000
    assert other.status_code == 200
    assert 'router_refused_total{door="http",reason="tenant_rate"} 2.0' in metrics
    assert "acme" not in metrics


async def test_a_keys_own_limit_and_the_concurrency_of_its_tenant_hold_together(
    site: Site, keys: Path, tmp_path: Path
) -> None:
    limited, first = entry(limits={"requestsPerSecond": 0.01, "burst": 1})
    free, second = entry()
    limits = tmp_path / "limits.yaml"
    limits.write_text("default: {concurrency: 1}")
    settings = site.settings(api_keys=keyed(keys, first, second), limits_file=limits)
    async with running(settings) as served:
        assert (await served.route({"prompt": "x"}, **bearer(limited))).status_code == 200
        again = await served.route({"prompt": "x"}, **bearer(limited))
        assert (await served.route({"prompt": "x"}, **bearer(free))).status_code == 200
        replies = await asyncio.gather(*(served.route({"prompt": "x"}, **bearer(free)) for _ in range(10)))
        later = await served.route({"prompt": "x"}, **bearer(free))
    assert again.status_code == 429
    assert "API key with the id" in again.json()["error"]["message"]
    assert {reply.status_code for reply in replies} == {200, 429}
    assert later.status_code == 200


async def test_no_key_is_ever_written_anywhere(
    site: Site, keys: Path, tmp_path: Path, start_router: Callable[..., RouterProcess]
) -> None:
    good, stored = entry()
    bad = "blm_000000000000_" + secrets.token_hex(32)
    seen = await talking(site, policy("default", TALK, generation=2))
    await site.listen("beamline.router.v1.status")
    router = start_router(BEAMLINE_API_KEYS=str(keyed(keys, stored)), LOG_LEVEL="debug")
    url = await router.start()
    said: list[str] = []
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as http:

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready, "the router is ready")
        for given in (good, bad, good[:-1], f"{good} {bad}"):
            for headers in (bearer(given), {"x-api-key": given}, {"authorization": given}):
                reply = await http.post("/v1/route", json={"prompt": "x"}, headers=headers)
                said += [reply.text, str(reply.headers)]
                reply = await http.post("/v1/chat/completions", content=b"{", headers=headers)
                said += [reply.text, str(reply.headers)]
        said.append((await http.get("/metrics")).text)
        said.append(str(await over_nats(site, {"prompt": "x"}, Authorization=f"Bearer {bad}")))
    await router.kill()
    said += [router.log.read_text(), str(site.heard), str(seen)]
    assert len(seen) == 3  # the good key, in each of the three places
    for text in said:
        assert good.split("_")[2][:-1] not in text
        assert bad.split("_")[2] not in text
        assert stored["hash"] not in text


@pytest.mark.parametrize("content", [None, "keys: [{id: x}]"], ids=["no file", "a faulty entry"])
async def test_a_router_does_not_start_with_keys_that_it_can_not_read(
    site: Site, keys: Path, content: str | None
) -> None:
    if content is not None:
        broken(keys, content)
    with pytest.raises(StartError, match=str(keys)):
        await run(site.settings(api_keys=keys))


async def test_a_request_near_a_limit_is_served_with_a_warning(site: Site) -> None:
    near = {"prompt": "x", "context": {"filler": "y" * 220_000}}
    async with running(site.settings()) as served:
        reply = await served.route(near)
        far = await served.route({"prompt": "x"})
        asked = await over_nats(site, near)
    assert reply.status_code == 200
    assert reply.headers["x-beamline-warning"].startswith("request body: 220")
    assert "of at most 262144 bytes" in reply.json()["warnings"][0]
    assert asked["warnings"] == reply.json()["warnings"]
    assert "x-beamline-warning" not in far.headers
    assert "warnings" not in far.json()


async def test_models_are_those_that_the_caller_can_ask_for(site: Site) -> None:
    step = PIPELINE[2:3]
    await site.put(
        policy("p1", step, match={"models": ["open"]}),
        policy("p2", step, match={"models": ["acme-only", "gpt-4*"], "tenants": ["acme"]}),
        policy("p3", step, match={"models": ["prod-only"], "environments": ["prod"]}),
        policy("p4", step, match={"models": ["red-only"], "headers": {"x-team": "red"}}),
        policy("p5", step, match={"models": ["never"], "percent": 0}),
    )
    async with running(site.settings()) as served:

        async def listed(**headers: str) -> list[str]:
            reply = await served.http.get("/v1/models", headers=headers)
            return [model["id"] for model in reply.json()["data"]]

        assert await listed() == ["open"]
        assert await listed(**{"x-beamline-tenant": "acme"}) == ["acme-only", "open"]
        assert await listed(**{"x-beamline-environment": "prod"}) == ["open", "prod-only"]
        assert await listed(**{"x-team": "red"}) == ["open", "red-only"]
        hidden = await served.http.get("/v1/models/acme-only")
    assert hidden.status_code == 404
