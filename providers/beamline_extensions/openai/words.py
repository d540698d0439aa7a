"""OpenAI's chat completions: requests as they come, answers as far as they are understood.

The router's own format for messages, tools and parameters is OpenAI's, so nothing is rewritten here: messages
(images and audio in them), tools, tool_choice, response_format and parameters that do not exist yet go on
under their names. What is read is checked field by field, because an endpoint may send anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from beamline_contract.errors import ErrorCode
from beamline_contract.wire import MAX_REPLY_BYTES
from beamline_sdk import Delta, ExtensionError, ExtensionRequest, ProviderReply
from beamline_sdk.results import StreamPart

from ..model_api.config import RESERVED, ModelApiConfig
from ..model_api.failures import interrupted, undecodable
from ..model_api.sdk import Asked

FINISH: Final[Mapping[str, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""The API's finish reasons in the one vocabulary; an unknown one is ``stop``."""
_REASONING: Final = ("o1", "o3", "o4", "gpt-5")
_BESIDE_TEXT: Final = ("tool_calls", "function_call", "refusal", "annotations", "audio", "reasoning_content")
_MAX_COUNT: Final = 2**53
_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details")
_MOST_LOGPROBS: Final = MAX_REPLY_BYTES // 2
"""Bytes of a stream's log probabilities; with more its end would be too large for NATS, so none are given."""
_ONLY_OURS: Final = frozenset({"latency_ms"})
"""Parameters of the mock provider, which a caller of both may send."""


class ChatCompletions:
    """See ``sdk.Words``."""

    def asked(self, request: ExtensionRequest, config: ModelApiConfig, *, stream: bool) -> Asked:
        if request.parameters.get("n") not in {None, 1}:
            raise ExtensionError(
                ErrorCode.INVALID_ARGUMENT, "parameters.n must be 1: there is one choice to a request"
            )
        body: dict[str, Any] = {"model": config.model_for(request.parameters.get("model"))}
        messages = request.messages
        if messages is None:
            messages = [{"role": "user", "content": request.prompt or ""}]
        if config.system is not None:
            messages = [{"role": "system", "content": config.system}, *messages]
        body["messages"] = messages
        body.update(config.parameters)
        for name in ("temperature", "top_p"):
            if (value := getattr(config, name)) is not None:
                body[name] = value
        body |= {
            name: value
            for name, value in request.parameters.items()
            if name not in RESERVED and name not in _ONLY_OURS and value is not None
        }
        _name_max_tokens(body, config)
        if stream:
            body["stream"] = True
            if getattr(config, "stream_usage", True):
                body["stream_options"] = {"include_usage": True}
        return Asked(body)

    def reply(self, data: Mapping[str, Any]) -> ProviderReply:
        choices = data.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise undecodable("choices is missing or empty")
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise undecodable("choices[0].message is not an object")
        content = message.get("content")
        if not isinstance(content, str | None):
            raise undecodable("choices[0].message.content is not text")
        beside = _beside_text(message)
        prompt, completion = _usage(data.get("usage"))
        return ProviderReply(
            output=content or "",
            prompt_tokens=prompt,
            completion_tokens=completion,
            model=_text(data.get("model")),
            finish_reason=_finish(choices[0].get("finish_reason"), beside),
            metadata=_metadata(data, choices[0], beside),
        )

    def reader(self) -> ChunkReader:
        return ChunkReader()


class ChunkReader:
    """Reads ``chat.completion.chunk`` events."""

    def __init__(self) -> None:
        self._model = ""
        self._id = ""
        self._finish: str | None = None
        self._usage = (0, 0)
        self._more: dict[str, Any] = {}
        self._beside: dict[str, Any] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._logprobs_size = 0

    def feed(self, event: object) -> list[StreamPart]:
        if not isinstance(event, dict):
            raise undecodable("an event is not an object")
        self._model = self._model or _text(event.get("model"))
        self._id = self._id or _text(event.get("id"))
        self._more.update(_beside_answer(event))
        if event.get("usage") is not None:
            self._usage = _usage(event["usage"])
        choices = event.get("choices")
        if not isinstance(choices, list):
            raise undecodable("an event has no choices")
        if not choices:
            return []
        choice = choices[0]
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            raise undecodable("an event has no delta")
        if isinstance(choice.get("finish_reason"), str):
            self._finish = choice["finish_reason"]
        text = delta.get("content")
        if not isinstance(text, str | None):
            raise undecodable("a delta's content is not text")
        parts: list[StreamPart] = [text] if text else []
        beside = _beside_text(delta)
        if beside:
            self._beside.update(beside)
            parts.append(Delta(message=beside))
        self._spell(choice.get("logprobs"))
        return parts

    def end(self) -> ProviderReply:
        if self._finish is None:
            raise interrupted()
        return ProviderReply(
            output="",
            prompt_tokens=self._usage[0],
            completion_tokens=self._usage[1],
            model=self._model,
            finish_reason=_finish(self._finish, self._beside),
            metadata=self._metadata(),
        )

    def _spell(self, logprobs: object) -> None:
        """Keeps log probabilities for the end, where it is known whether the text stayed as it was."""
        if not isinstance(logprobs, dict) or self._logprobs_size > _MOST_LOGPROBS:
            return
        try:
            self._logprobs_size += len(orjson.dumps(logprobs))
        except orjson.JSONEncodeError:  # half a character
            self._logprobs_size = _MOST_LOGPROBS + 1
        for name in ("content", "refusal"):
            if isinstance(entries := logprobs.get(name), list):
                self._logprobs.setdefault(name, []).extend(entries)

    def _metadata(self) -> dict[str, Any]:
        found = dict(self._more)
        if self._id:
            found["response_id"] = self._id
        if self._logprobs and self._logprobs_size <= _MOST_LOGPROBS:
            found["logprobs"] = {"content": None, "refusal": None, **self._logprobs}
        return found


def _name_max_tokens(body: dict[str, Any], config: ModelApiConfig) -> None:
    """One of the two names for the same limit: the caller's, else the one that the model takes."""
    if "max_completion_tokens" in body:
        body.pop("max_tokens", None)
        return
    most = body.pop("max_tokens", config.max_tokens)
    if most is None:
        return
    name = getattr(config, "max_tokens_field", "max_tokens")
    if name == "auto":
        name = "max_completion_tokens" if body["model"].startswith(_REASONING) else "max_tokens"
    body[name] = most


def _beside_text(message: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: message[name] for name in _BESIDE_TEXT if message.get(name)}
    calls = found.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise undecodable("tool_calls is not a list of objects")
    return found


def _finish(reason: object, beside: Mapping[str, Any]) -> str:
    if reason is None and beside.get("tool_calls"):
        return "tool_calls"
    return FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"


def _usage(usage: object) -> tuple[int, int]:
    """Prompt and completion tokens; 0 where an endpoint does not count."""
    if usage is None:
        return 0, 0
    if not isinstance(usage, dict):
        raise undecodable("usage is not an object")
    counts = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    if not all(type(count) is int and 0 <= count <= _MAX_COUNT for count in counts):
        raise undecodable("usage holds something other than counts")
    return counts[0], counts[1]


def _metadata(data: Mapping[str, Any], choice: Mapping[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(data.get("id"), str):
        found["response_id"] = data["id"]
    found |= _beside_answer(data)
    if isinstance(choice.get("logprobs"), dict):
        found["logprobs"] = choice["logprobs"]
    if beside:
        found["message"] = beside
    return found


def _beside_answer(data: Mapping[str, Any]) -> dict[str, Any]:
    """What an API says of an answer or its stream: who made it, and what its tokens were spent on."""
    found: dict[str, Any] = {
        name: data[name] for name in ("system_fingerprint", "service_tier") if isinstance(data.get(name), str)
    }
    usage = data.get("usage")
    details = {}
    if isinstance(usage, dict):
        details = {name: usage[name] for name in _DETAILS if isinstance(usage.get(name), dict)}
    return {**found, "usage_details": details} if details else found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
