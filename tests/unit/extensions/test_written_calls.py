"""The head of a call to a model API: written by the SDK once, and sent with every body."""

from __future__ import annotations

import itertools
from typing import Any

import httpx2
import openai
import pytest

from beamline_extensions.anthropic.sdk import SDK as ANTHROPIC
from beamline_extensions.model_api.calls import Recorder, head_of, written
from beamline_extensions.openai.sdk import FOREIGN
from beamline_extensions.openai.sdk import SDK as OPENAI

BASE = "https://llm.example:8443/v1"


def lines(head: bytes) -> dict[str, str]:
    """The header lines of a head, by lower-case name; the request line under an empty one."""
    first, *rest = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in rest)
    return {"": first, **{name.lower(): value for name, _, value in pairs}}


async def test_the_sdk_decides_about_path_key_and_user_agent_and_the_body_follows_the_head() -> None:
    call = await OPENAI.written(BASE, "sk-one", None, stream=False)
    said = lines(call.head)
    assert said[""] == "POST /v1/chat/completions HTTP/1.1"
    assert said["authorization"] == "Bearer sk-one"
    assert said["host"] == "llm.example:8443"
    assert said["user-agent"].startswith("AsyncOpenAI/Python")
    assert said["content-type"] == "application/json"
    assert call.head.endswith(b"\r\ncontent-length: ")
    assert call.origin == ("https", "llm.example", 8443)
    assert call.kept


async def test_anthropic_gets_its_version_and_key() -> None:
    said = lines((await ANTHROPIC.written("https://a.example", "sk-a", None, stream=True)).head)
    assert said[""] == "POST /v1/messages HTTP/1.1"
    assert "sk-a" in said["authorization"]
    assert said["anthropic-version"]


async def test_headers_of_a_kind_of_call_come_on_top() -> None:
    said = lines(
        (await ANTHROPIC.written("https://a.example", "k", {"anthropic-beta": "x"}, stream=False)).head
    )
    assert said["anthropic-beta"] == "x"


async def test_without_a_key_no_credential_is_sent() -> None:
    said = lines((await FOREIGN.written("http://llm.local/v1", None, None, stream=False)).head)
    assert "authorization" not in said


@pytest.mark.parametrize("sdk", [OPENAI, ANTHROPIC])
async def test_nothing_about_time_or_framing_is_kept(sdk: Any) -> None:
    call = await sdk.written("https://a.example", "k", None, stream=False)
    said = lines(call.head.removesuffix(b"\r\ncontent-length: "))
    assert not [name for name in said if "timeout" in name or name in {"content-length", "connection"}]
    assert said["accept-encoding"] == "identity"


async def test_a_head_with_something_of_its_own_is_not_kept() -> None:
    recorder, numbers = Recorder(), itertools.count()

    class Unlike(openai.AsyncOpenAI):
        async def post(self, *arguments: Any, **named: Any) -> Any:
            named["options"] = {"headers": {"idempotency-key": str(next(numbers))}}
            return await super().post(*arguments, **named)

    async with httpx2.AsyncClient(transport=recorder) as http:
        client = Unlike(api_key="k", base_url=BASE, http_client=http)
        call = await written(client, recorder, "/chat/completions", None, stream=None)
    assert lines(call.head)["idempotency-key"] == "0"
    assert not call.kept


def test_a_line_break_in_a_header_is_refused() -> None:
    request = httpx2.Request("POST", BASE, headers=[(b"a", b"b\r\nhost: evil")])
    with pytest.raises(httpx2.LocalProtocolError):
        head_of(request)
