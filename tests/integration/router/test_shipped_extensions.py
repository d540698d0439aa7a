"""The extensions that ship with Beamline, as processes of their own, asked by a real router."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from beamline_contract.objects import Extension, parse_object
from beamline_contract.projection import ExtensionRecord, extension_record

from .conftest import Served, Site, eventually, policy, running

SHIPPED = Path(__file__).resolve().parents[3] / "providers" / "beamline_extensions"
Begin = Callable[..., Awaitable[None]]


def shipped(name: str, **config: Any) -> list[ExtensionRecord]:
    """The records of an extension's manifest, with other configuration."""
    records = []
    for document in yaml.safe_load_all((SHIPPED / name / "manifest.yaml").read_text()):
        document["metadata"] |= {"uid": f"uid-{document['metadata']['name']}", "generation": 1}
        document["spec"]["timeoutMs"] = 10_000  # this machine may be busy
        document["spec"]["config"] |= config
        parsed = parse_object(document)
        assert isinstance(parsed, Extension)
        records.append(extension_record(parsed))
    return records


@pytest.fixture
async def begin(site: Site, tmp_path: Path) -> AsyncIterator[Begin]:
    """Puts shipped extensions into the registry and starts their processes, ready."""
    import asyncio

    started: list[asyncio.subprocess.Process] = []

    async def start(name: str, **config: Any) -> None:
        await site.put(*shipped(name, **config), hint=False)
        log = tmp_path / f"{name}.log"
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "BEAMLINE_"))
        }
        subject = shipped(name)[0].subject
        env = {**clean, "NATS_URL": site.nats_url, "NATS_SUBJECT": subject, "METRICS_PORT": "0"}
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "beamline_extensions", name, env=env, stderr=out
            )
        started.append(process)
        wanted = 2 if name == "response_cache" else 1
        await eventually(lambda: log.read_text().count('"extension.ready"') >= wanted, f"{name} is ready")

    yield start
    for process in started:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0


def step(action: str, extension_id: str, **more: Any) -> dict[str, Any]:
    return {"action": f"extension_{action}", "extension_id": extension_id, **more}


ECHO = {"action": "select_provider", "provider_id": "echo"}
CACHED = [step("pre", "response_cache"), ECHO, step("post", "response_cache_store")]


async def test_the_second_time_the_provider_is_not_asked(site: Site, begin: Begin) -> None:
    await begin("response_cache")
    await site.put(policy("default", CACHED, generation=2), hint=False)
    async with running(site.settings()) as served:

        async def ask(**changes: Any) -> tuple[dict[str, Any], int]:
            before = site.calls.get("echo", 0)
            reply = await served.route({"prompt": "Hi", "tenant_id": "acme", **changes})
            assert reply.status_code == 200, reply.text
            return reply.json(), site.calls.get("echo", 0) - before

        first, calls = await ask()
        assert (calls, first["metadata"]["cache"]) == (1, "miss")
        again, calls = await ask()
        assert (calls, again["output"], again["provider_id"]) == (0, first["output"], "response_cache")
        assert (again["metadata"]["cache"], again["metadata"]["model"]) == ("hit", "m")
        assert again["usage"]["total_tokens"] == 0
        for other in ({"tenant_id": "globex"}, {"model": "n"}, {"parameters": {"temperature": 0}}):
            assert (await ask(**other))[1] == 1
        assert (await ask(context={"response_cache": "bypass"}))[1] == 1


async def test_a_streamed_answer_is_not_remembered_but_may_come_from_memory(site: Site, begin: Begin) -> None:
    await begin("response_cache")
    await begin("mock_provider", latency_ms=0, full_echo=True, chunk_characters=400)
    mock = {"action": "select_provider", "provider_id": "mock_provider"}
    await site.put(policy("default", [CACHED[0], mock, CACHED[2]], generation=2), hint=False)
    body = {"prompt": "x" * 2_000, "tenant_id": "acme"}
    async with running(site.settings()) as served:
        assert await streamed(served, body) == ("mock_provider", "x" * 2_000)
        assert (await served.route(body)).json()["metadata"]["cache"] == "miss"
        assert await streamed(served, body) == ("response_cache", "x" * 2_000)


async def streamed(served: Served, body: dict[str, Any]) -> tuple[str, str]:
    """Who answered a stream, and its text."""
    reply = await served.route({**body, "stream": True})
    parts = [orjson.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    assert "provider_id" in parts[-1], reply.text
    return parts[-1]["provider_id"], "".join(part.get("delta", "") for part in parts[:-1])


SCHEMA = {"type": "object", "required": ["price"], "properties": {"price": {"minimum": 0}}}


async def test_a_wrong_answer_is_asked_for_once_more_and_then_refused_with_its_field(
    site: Site, begin: Begin
) -> None:
    await begin("json_schema_validator", schema=SCHEMA)
    await begin("mock_provider", latency_ms=0)

    async def serve(served: Served, generation: int, *outputs: str) -> Any:
        """What a provider that gives these answers in turn leads to."""
        script = {"mode": "scripted", "script_end": "last", "script": [{"output": text} for text in outputs]}
        chosen = {"action": "select_provider", "provider_id": "mock_provider", "config": script}
        checked = [chosen, step("post", "json_schema_validator")]
        revision = await site.put(policy("default", checked, generation=generation))

        async def there() -> bool:
            return int((await served.readiness())["revision"]) >= revision

        await eventually(there, "the router has the policy")
        return await served.route({"prompt": "Hi"})

    async with running(site.settings()) as served:
        mended = await serve(served, 2, '{"price": -1}', '```json\n{"price": 2}\n```')
        assert (mended.status_code, mended.json()["output"]) == (200, '{"price": 2}')
        assert [one["outcome"] for one in mended.json()["steps"]] == ["ok", "error", "ok", "ok"]
        wrong = await serve(served, 3, '{"price": -1}')
        assert wrong.status_code == 422
        error = wrong.json()["error"]
        assert (error["code"], error["details"]["path"]) == ("VALIDATION_REJECTED", "$.price")
        reply = await served.route({"prompt": "Hi", "stream": True})
        assert "VALIDATION_REJECTED" in reply.text
        assert "delta" not in reply.text
        right = await serve(served, 4, '{"price": 3}' + " " * 1_000)
        assert right.status_code == 200
        assert (await streamed(served, {"prompt": "Hi"}))[1] == '{"price": 3}'


async def test_the_guards_refuse_annotate_and_mask(site: Site, begin: Begin) -> None:
    await begin("prompt_guard", deny=["falcon"])
    await begin("pii_guard", block_on_match=False)
    await begin("mask_sensitive_data", style="hash")
    steps = [
        step("validator", "prompt_guard"),
        step("validator", "pii_guard"),
        ECHO,
        step("post", "mask_sensitive_data"),
    ]
    await site.put(policy("default", steps, generation=2), hint=False)
    async with running(site.settings()) as served:
        refused = await served.route({"prompt": "F\u0430lc\u200bon"})
        assert refused.status_code == 422
        assert refused.json()["error"]["details"] == {"rule": "deny[0]"}
        passed = (await served.route({"prompt": "write to jane@example.com"})).json()
    assert passed["steps"][1]["notes"] == {"kinds": ["email"], "count": 1}
    assert "jane" not in passed["output"]
    assert passed["output"].startswith("echo: write to [EMAIL:")
