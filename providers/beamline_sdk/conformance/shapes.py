"""Whether a reply is one of the contract: pure, every fault in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from beamline_contract.errors import ErrorCode
from beamline_contract.names import ExtensionType

FINISH_REASONS: Final = ("stop", "length", "tool_calls", "content_filter")
_PATCHED: Final[Mapping[str, Mapping[str, type]]] = {
    "pre": {"prompt": str, "messages": list, "parameters": dict, "output": str, "context": dict},
    "post": {"output": str, "context": dict, "metadata": dict},
}
_FIXED: Final = ("tenant_id", "request_id", "trace_id", "extension_id")
_WORDS: Final[Mapping[type, str]] = {str: "a string", dict: "an object", list: "a list"}


def reply_faults(kind: ExtensionType, body: object, request: Mapping[str, Any]) -> tuple[str, ...]:
    """What is wrong with ``body`` as the answer of a ``kind`` to ``request``; an error reply is an answer."""
    if not isinstance(body, dict):
        return ("the reply is not a JSON object",)
    if body.get("error") is not None:
        return tuple(_error_faults(body["error"]))
    match kind:
        case "provider":
            return tuple(_provider_faults(body, request))
        case "validator":
            return tuple(_verdict_faults(body))
        case _:
            return tuple(_patch_faults(kind, body, request))


def error_code(body: object) -> str | None:
    """The code of an error reply, None of any other."""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("code")) if isinstance(error, dict) else None


def end_faults(body: object, request: Mapping[str, Any]) -> tuple[str, ...]:
    """What is wrong with the last message of a stream: a provider's reply without ``output``."""
    if not isinstance(body, dict):
        return ("the end of the stream is not a JSON object",)
    if "output" in body:
        return ("the end of the stream repeats output",)
    return reply_faults("provider", {"output": "", **body}, request)


def _error_faults(error: object) -> Iterator[str]:
    if not isinstance(error, dict):
        yield "error is not an object"
        return
    code = error.get("code")
    if code not in tuple(ErrorCode):
        yield f"error.code {code!r} is not one of {', '.join(ErrorCode)}"
    if not isinstance(error.get("message"), str) or not error["message"]:
        yield "error.message is not a sentence"
    if "retryable" in error and not isinstance(error["retryable"], bool):
        yield "error.retryable is neither true nor false"
    wait = error.get("retry_after_ms")
    if wait is not None and (not isinstance(wait, int | float) or isinstance(wait, bool) or wait < 0):
        yield "error.retry_after_ms is not a number of milliseconds"


def _provider_faults(body: Mapping[str, Any], request: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(body.get("output"), str):
        yield "output is not a string"
    if body.get("provider_id") != request.get("provider_id"):
        yield f"provider_id is not that of the request, {request.get('provider_id')!r}"
    usage = body.get("usage")
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    if not isinstance(usage, dict):
        yield "usage is not an object"
    elif any(type(usage.get(name)) is not int or usage[name] < 0 for name in names):
        yield f"usage does not hold {', '.join(names)} as whole numbers"
    elif usage["total_tokens"] != usage["prompt_tokens"] + usage["completion_tokens"]:
        yield "usage.total_tokens is not the sum of the other two"
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        yield "metadata is not an object"
        return
    if not isinstance(metadata.get("model"), str):
        yield "metadata.model is not a string"
    if metadata.get("finish_reason") not in FINISH_REASONS:
        yield f"metadata.finish_reason is not one of {', '.join(FINISH_REASONS)}"


def _verdict_faults(body: Mapping[str, Any]) -> Iterator[str]:
    verdict = body.get("verdict")
    if verdict not in {"pass", "reject"}:
        yield f"verdict is {verdict!r}, neither 'pass' nor 'reject'"
    elif verdict == "reject" and not (isinstance(body.get("reason"), str) and body["reason"]):
        yield "a rejection has no reason"
    if body.get("details") is not None and not isinstance(body["details"], dict):
        yield "details is not an object"


def _patch_faults(kind: str, body: Mapping[str, Any], request: Mapping[str, Any]) -> Iterator[str]:
    for name, expected in _PATCHED[kind].items():
        if body.get(name) is not None and not isinstance(body[name], expected):
            yield f"{name} is not {_WORDS[expected]}"
    for name in _FIXED:
        if name in body and body[name] != request.get(name):
            yield f"{name} is changed, which no extension may"
