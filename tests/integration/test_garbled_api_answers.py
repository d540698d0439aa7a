"""A proxy that answers in the API server's place: nothing that it says is taken for the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import kmock
import pytest
import yaml

from beamline_sdk.deployment.kube_api import KubeApi, KubeError

PATH = "/api/v1/namespaces/default/services"
PAGE = b"<html><body><h1>Please log in</h1></body></html>"
EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n'
Answer: TypeAlias = Callable[..., None]


@pytest.fixture
async def server() -> AsyncIterator[kmock.RawHandler]:
    async with kmock.RawHandler() as script:
        yield script


@pytest.fixture
async def api(server: kmock.RawHandler, tmp_path: Path) -> AsyncIterator[KubeApi]:
    async with kmock.Server(server) as running:
        login: dict[str, Any] = {
            "clusters": [{"name": "a", "cluster": {"server": str(running.url).rstrip("/")}}],
            "users": [{"name": "a", "user": {"token": "unused"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(login))
        made = await KubeApi.connect(str(kubeconfig))
        yield made
        await made.close()


@pytest.fixture
def answer(server: kmock.RawHandler) -> Answer:
    """Scripts what is answered to everything from now on."""
    now: dict[str, Any] = {}
    server.fallback << (lambda _: kmock.Response(**now))

    def script(body: bytes, status: int = 200) -> None:
        now.update(status=status, payload=body)

    return script


async def listed(api: KubeApi) -> Any:
    return [item async for item in api.items(PATH)]


async def watched(api: KubeApi) -> Any:
    return [event async for event in api.watch(PATH, {})]


@pytest.mark.parametrize(
    "ask", [lambda api: api.find(f"{PATH}/a"), listed, watched], ids=["get", "list", "watch"]
)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(PAGE, id="a page"),
        pytest.param(b'{"metadata":{"na', id="half an answer"),
        pytest.param(b"[1]", id="JSON, but no object"),
        pytest.param(b'{"error":"log in","items":[],"metadata":{"name":"a"}}', id="JSON of somebody else"),
        pytest.param(b"\xff\xfe", id="in no encoding"),
    ],
)
async def test_what_is_no_answer_of_an_api_server_is_one_that_did_not_come(
    api: KubeApi, answer: Answer, body: bytes, ask: Callable[[KubeApi], Awaitable[Any]]
) -> None:
    answer(body)
    with pytest.raises(KubeError, match="not an API server's") as caught:
        await ask(api)
    assert (caught.value.status, caught.value.reason, caught.value.retryable) == (0, "Garbled", True)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"kind":"ServiceList","metadata":{}}'], ids=["nothing", "an object", "no items"]
)
async def test_a_list_without_items_is_not_an_empty_one(api: KubeApi, answer: Answer, body: bytes) -> None:
    answer(body)
    with pytest.raises(KubeError, match="not an API server's"):
        await listed(api)
    answer(b'{"kind":"ServiceList","metadata":{},"items":null}')
    assert await listed(api) == []


async def test_a_watch_tells_what_came_before_the_page(api: KubeApi, answer: Answer) -> None:
    answer(EVENT + b'{"type":"ADDED"}\n' + EVENT)
    events = api.watch(PATH, {})
    assert (await anext(events))["object"] == {"metadata": {"name": "a"}}
    with pytest.raises(KubeError, match="not an API server's"):
        await anext(events)


async def test_a_refusal_keeps_its_code_whatever_its_words(api: KubeApi, answer: Answer) -> None:
    answer(PAGE, 504)
    with pytest.raises(KubeError, match="Please log in") as caught:
        await api.find(f"{PATH}/a")
    assert caught.value.status == 504
