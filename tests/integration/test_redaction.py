"""Nothing that a caller, a key holder or a model says is kept where it does not belong.

Canaries go through every path: prompts, messages, headers, parameters, context, malformed bodies, streams,
the bodies of failed upstream calls, exceptions of an author's code, and faulty objects. Then every place that
keeps or shows something is searched: logs of every process at level debug, spans, metrics, all tables of the
database, status of the objects, and all of NATS but the way of the request itself.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from nats.aio.msg import Msg

from beamline_sdk import link
from harness.canaries import leaks
from harness.laptop import ROOT, Up
from harness.model_api import FakeApi, error, events, fake_api, gpt_chunk, raw, whole
from harness.otlp import Collector

MAIL, PHONE, CARD = "zq.canary@example.com", "+43 660 5550123", "4111 1111 1111 1111"
WORDS = {
    "prompt": "zqprompt",
    "answer": "zqanswer",
    "system message": "zqsystem",
    "parameter": "zqparameter",
    "context": "zqcontext",
    "metadata": "zqmetadata",
    "header": "zqheader",
    "cookie": "zqcookie",
    "bearer": "zqbearer",
    "API key": "zqapikey",
    "provider key": "sk-zqproviderkey-0123456789abcdef",
    "upstream error": "zqupstream",
    "streamed chunk": "zqchunk",
    "malformed body": "zqmalformed",
    "unknown field": "zqfield",
    "exception": "zqexception",
    "e-mail": MAIL,
    "phone": PHONE,
    "card": CARD,
}
FAULTY = "zqfaultyconfig"
"""In a config that breaks its schema: part of the object, and of nothing that speaks about it."""
THE_WAY = ("beamline.provider.", "beamline.ext.", "beamline.router.v1.invoke", "_INBOX.", "_R_", "_CANCEL")
AUTHOR = """
from beamline_sdk import ExtensionRequest, ProviderReply, provider, run

@provider(name="author")
async def author(request: ExtensionRequest, config: object) -> ProviderReply:
    raise ValueError(f"zqexception: can't do {request.prompt} for {request.headers}")

run(author)
"""
PATIENCE_S = 40.0


def extension(name: str, kind: str, command: list[str], **spec: Any) -> dict[str, Any]:
    workload = {"image": "none", "command": command, **spec.pop("workload", {})}
    return {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "Extension",
        "metadata": {"name": name},
        "spec": {"type": kind, "workload": workload, **spec},
    }


def policy(name: str, model: str, provider: str) -> dict[str, Any]:
    return {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": name},
        "spec": {
            "match": {"models": [model]},
            "steps": [
                {"action": "extension_pre", "extensionRef": {"name": "normalize-text"}},
                {"action": "extension_validator", "extensionRef": {"name": "pii-guard"}},
                {"action": "select_provider", "providers": [{"extensionRef": {"name": provider}}]},
                {"action": "extension_post", "extensionRef": {"name": "mask-sensitive-data"}},
            ],
        },
    }


def manifests(folder: Path, upstream: str) -> None:
    shutil.copytree(ROOT / "examples" / "quickstart", folder)
    (folder / "author.py").write_text(AUTHOR)
    key = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "openai", "key": "api-key"}}}
    env = [key, {"name": "OPENAI_BASE_URL", "value": upstream}]
    breaker = {"failureThreshold": 1000}
    openai = {
        "config": {"model": "gpt-4"},
        "retry": 1,
        "timeoutMs": 5000,
        "circuitBreaker": breaker,
        "workload": {"env": env},
    }
    objects = [
        extension("gpt", "provider", ["beamline", "extension", "run", "openai"], **openai),
        extension("author", "provider", [sys.executable, str(folder / "author.py")], retry=0),
        policy("gpt", "gpt-4*", "gpt"),
        policy("author", "author", "author"),
    ]
    (folder / "more.yaml").write_text(yaml.safe_dump_all(objects))


class Site:
    """A running ``beamline up``, what it said on NATS, and the ways into it."""

    def __init__(self, up: Up, api: FakeApi, collector: Collector) -> None:
        self.up = up
        self.api = api
        self.collector = collector
        self.heard: list[tuple[str, bytes]] = []
        run = json.loads((up.state / "run.json").read_text())
        self.url, self.nats_url, self.database_url = run["url"], run["nats_url"], run["database_url"]
        self.http = httpx2.AsyncClient(base_url=self.url, timeout=PATIENCE_S)

    async def listen(self) -> None:
        self.nc = await link.connect(link.LinkSettings(self.nats_url, "listener"), timeout_s=10)

        async def heard(message: Msg) -> None:
            told = repr(message.headers).encode() + message.data
            self.heard.append((message.subject, told))

        await self.nc.subscribe(">", cb=heard)
        await self.nc.flush()

    async def ask(self, path: str = "/v1/route", **given: Any) -> int:
        """One request with a canary in everything that a caller may say."""
        headers = {
            "authorization": f"Bearer {WORDS['bearer']}",
            "x-api-key": WORDS["API key"],
            "cookie": f"session={WORDS['cookie']}",
            "x-secret": WORDS["header"],
            "user-agent": WORDS["header"],
            **given.pop("headers", {}),
        }
        if "content" in given:
            headers.setdefault("content-type", "application/json")
        return (await self.http.post(path, headers=headers, **given)).status_code

    async def until(self, met: Callable[[], bool]) -> None:
        """Waits for something that comes by itself."""
        async with asyncio.timeout(PATIENCE_S):
            while not met():  # noqa: ASYNC110 -- what comes is read from outside
                await asyncio.sleep(0.1)

    async def close(self) -> None:
        await self.http.aclose()
        await link.close(self.nc, grace_s=1.0)


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="beamline-test-redaction-"))
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    monkeypatch.setenv("OPENAI_API_KEY", WORDS["provider key"])
    async with fake_api() as api:
        manifests(folder / "manifests", f"{api.url}/v1")
        up = Up(folder, "--log-level", "debug", folder=folder / "manifests")
        made: Site | None = None
        try:
            await asyncio.to_thread(up.ready)
            made = Site(up, api, collector)
            await made.listen()
            yield made
        finally:
            if made is not None:
                await made.close()
            if up.process.poll() is None:
                await asyncio.to_thread(up.stop)
            collector.stop()
            shutil.rmtree(folder, ignore_errors=True)


def body(model: str = "gpt-4", **more: Any) -> dict[str, Any]:
    prompt = f"{WORDS['prompt']} write to {MAIL} or call {PHONE}"
    parameters = {"temperature": 0.5, "user": WORDS["parameter"], "stop": [WORDS["parameter"]]}
    return {
        "prompt": prompt,
        "model": model,
        "parameters": parameters,
        "context": {"note": WORDS["context"]},
        **more,
    }


def chat(**more: Any) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": WORDS["system message"]},
        {"role": "user", "content": f"{WORDS['prompt']} {MAIL}"},
    ]
    return {"model": "gpt-4", "messages": messages, "metadata": {"note": WORDS["metadata"]}, **more}


def completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4",
        "choices": [choice],
        "usage": usage,
    }


async def through_every_path(site: Site) -> None:
    secret = WORDS["upstream error"]

    def says(*answers: Any) -> None:
        site.api.script.clear()
        site.api.says(*answers)

    says(whole(completion(f"{WORDS['answer']} {MAIL}")))
    assert await site.ask(json=body()) == 200
    says(whole(completion(WORDS["answer"])))
    assert await site.ask("/v1/chat/completions", json=chat()) == 200
    assert await site.ask(json=body("anything")) == 200  # the mock provider answers with the prompt
    assert await site.ask(json={**body(), "prompt": f"{WORDS['prompt']} {CARD}"}) == 422
    assert await site.ask(json=body("author")) == 500
    for status in (400, 401, 403, 404, 500, 503):
        words = f"{secret} {WORDS['provider key']} {WORDS['prompt']}"
        says(*[error(status, secret, f"x-request-id: {secret} {WORDS['provider key']}", message=words)] * 2)
        assert await site.ask(json=body()) >= 400
    says(*[whole(f"{secret} is no JSON".encode())] * 2)
    assert await site.ask(json=body()) >= 500
    says(*[raw(f"{secret}\r\n\r\n".encode())] * 2)
    assert await site.ask(json=body()) >= 500
    await asyncio.to_thread(site.up.cli, "reset", "gpt", "--state", str(site.up.state))
    rows: list[object] = [
        gpt_chunk({"role": "assistant", "content": f"{WORDS['streamed chunk']} {MAIL} "})
    ] * 3
    says(events(*rows, gpt_chunk({}, "stop"), "data: [DONE]\n\n"))
    await site.ask("/v1/chat/completions", json=chat(stream=True))
    says(*[events(*rows, f'data: {{"error": {{"message": "{secret}"}}}}\n\n')] * 2)
    await site.ask("/v1/chat/completions", json=chat(stream=True))
    says(*[events(*rows, end=False)] * 2)
    await site.ask("/v1/chat/completions", json=chat(stream=True))
    says(*[error(429, secret, message=secret)] * 2)
    assert await site.ask(json=body()) == 429
    deep = "[" * 40 + f'"{WORDS["malformed body"]}"' + "]" * 40
    for broken in (
        f'{{"prompt": "{WORDS["malformed body"]}',
        json.dumps({**body(), WORDS["unknown field"]: WORDS["malformed body"]}),
        json.dumps({**body(), "prompt": [WORDS["malformed body"]]}),
        f'{{"prompt": "x", "context": {deep}}}',
        json.dumps({"prompt": WORDS["malformed body"] * 40_000}),
        json.dumps({"prompt": "x", "policy": f"{WORDS['malformed body']} {CARD}"}),
    ):
        assert await site.ask(content=broken) >= 400
    strange = {"content-type": f"text/{WORDS['malformed body']}"}
    assert await site.ask(content=WORDS["malformed body"], headers=strange) == 415
    headers = {"Authorization": f"Bearer {WORDS['bearer']}", "X-Secret": WORDS["header"]}
    for payload in (json.dumps(body("anything")), WORDS["malformed body"]):
        with suppress(TimeoutError):
            await site.nc.request("beamline.router.v1.invoke", payload.encode(), timeout=20, headers=headers)


async def with_a_faulty_object(site: Site) -> None:
    """An object whose config breaks the schema of the extension, one that breaks the object's own, and a file
    that is no YAML.
    """
    (site.up.folder / "faulty.yaml").write_text(
        yaml.safe_dump_all(
            [
                extension(
                    "faulty", "validator", ["beamline", "extension", "run", "pii_guard"],
                    config={"patterns": [FAULTY], "block_on_match": FAULTY},
                ),
                extension("wrong", "pre", ["beamline"], config={"lowercase": FAULTY}, timeoutMs=-1),
            ]
        )
    )  # fmt: skip
    (site.up.folder / "broken.yaml").write_text(f"apiVersion: [{FAULTY}\n")

    def noticed() -> bool:
        found = site.up.cli("get", "ext", "-o", "json", "--state", str(site.up.state))
        return '"faulty"' in found.stdout

    give_up = asyncio.get_running_loop().time() + PATIENCE_S
    while not await asyncio.to_thread(noticed):
        assert asyncio.get_running_loop().time() < give_up, site.up.said
        await asyncio.sleep(0.2)
    step = {"action": "extension_validator", "extensionRef": {"name": "faulty"}}
    faulty = policy("faulty", "faulty", "mock-provider")
    faulty["spec"]["steps"].insert(0, step)
    (site.up.folder / "faulty-policy.yaml").write_text(yaml.safe_dump(faulty))
    await asyncio.sleep(1.0)
    await site.ask(json=body("faulty"))


async def metrics_of(site: Site) -> dict[str, str]:
    """What every process below ``up`` answers to a scrape, in both formats."""
    ports = {"router": int(site.url.rpartition(":")[2])}
    for child in psutil.Process(site.up.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            environ = child.environ()
            port = environ.get("METRICS_PORT") or environ.get("BEAMLINE_ADMIN_HTTP_PORT", "")
            if port.isdigit() and int(port):
                ports[f"{environ.get('BEAMLINE_EXTENSION_ID', child.name())} {child.pid}"] = int(port)
    found = {}
    async with httpx2.AsyncClient(timeout=10) as http:
        for name, port in ports.items():
            for kind in ("text/plain", "application/openmetrics-text"):
                with suppress(httpx2.HTTPError):
                    answer = await http.get(f"http://127.0.0.1:{port}/metrics", headers={"accept": kind})
                    found[f"metrics of {name} as {kind}"] = answer.text
    return found


async def tables(site: Site) -> dict[str, str]:
    """Every row of every table."""
    import asyncpg

    connection = await asyncpg.connect(site.database_url)
    try:
        names = await connection.fetch(
            "SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        found = {}
        for row in names:
            rows = await connection.fetch(f"SELECT t::text AS text FROM {row['name']} t")
            found[f"table {row['name']}"] = "\n".join(one["text"] for one in rows)
        return found
    finally:
        await connection.close()


def statuses(site: Site) -> dict[str, str]:
    """What the objects say of themselves, without what their authors wrote; what ``up`` says of the files."""
    said = site.up.cli("get", "all", "-o", "json", "--state", str(site.up.state)).stdout
    items = json.loads(said)["items"]
    found = {f"status of {item['metadata']['name']}": json.dumps(item.get("status")) for item in items}
    told = json.loads(site.up.cli("status", "-o", "json", "--state", str(site.up.state)).stdout)
    live = site.up.cli("status", "--live", "-o", "json", "--state", str(site.up.state)).stdout
    return {**found, "faults of the files": json.dumps(told["faults"]), "status --live": live}


def logs(site: Site) -> dict[str, str]:
    found = {
        str(path.name): path.read_text(errors="replace") for path in (site.up.state / "logs").rglob("*.log")
    }
    return {**found, "beamline up": site.up.said}


@pytest.mark.timeout(240)
async def test_no_canary_is_found_anywhere_but_on_the_way_of_its_request(site: Site) -> None:
    await through_every_path(site)
    await with_a_faulty_object(site)
    before = len(site.heard)
    reports = {"beamline.router.v1.health", "beamline.router.v1.status"}
    await site.until(lambda: reports <= {subject for subject, _ in site.heard[before:]})

    kept = {**await tables(site), **await metrics_of(site), **await asyncio.to_thread(statuses, site)}
    nats: dict[str, str] = {}
    for subject, told in site.heard:
        if not subject.startswith(THE_WAY):
            nats[f"NATS {subject}"] = nats.get(f"NATS {subject}", "") + told.decode(errors="replace")
    spans = {f"spans {number}": raw_.decode("latin-1") for number, raw_ in enumerate(site.collector.bodies)}
    assert await asyncio.to_thread(site.up.stop) == 0
    places = {**kept, **nats, **spans, **logs(site)}

    assert len([name for name in places if name.startswith("table ")]) >= 5
    assert len([name for name in places if name.startswith("metrics of")]) >= 10
    assert {f"NATS {subject}" for subject in reports} <= nats.keys()
    assert site.collector.named("provider.gpt.api_call")
    assert {"router.log", "beamline up"} < places.keys()
    assert '"event":"request.served"' in places["router.log"]
    assert leaks(places, WORDS) == []
    spoken = {name: text for name, text in places.items() if not name.startswith("table ")}
    assert leaks(spoken, {"faulty config": FAULTY}) == []


def test_the_search_finds_what_is_there() -> None:
    text = {"a log": f"paid with 4111-1111-1111-1111 by {MAIL.upper()}", "another": "nothing"}
    assert leaks(text, WORDS) == ["a log: e-mail", "a log: card"]
