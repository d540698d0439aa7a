"""The words of OpenAI's chat completions and models, in and out.

The router keeps its own errors; this is the one table that says what a client of that API reads of them
(contract: "Errors over HTTP"). A stream is server-sent events ``data: {chat.completion.chunk}`` up to
``data: [DONE]``; an error after it has begun is ``data: {"error": ...}``, which the official clients raise,
and no ``[DONE]`` follows.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import orjson

from beamline_contract.errors import HTTP_STATUS, ErrorCode, WireError

from ..core.envelope import Envelope
from ..core.intake import Shape
from ..core.openai_intake import chat_shape
from ..core.request import Answer, Request
from ..core.stream_port import Delta, Sink, SinkStalledError
from .http_exchange import Exchange, Header
from .http_replies import Events, add_error_headers, served_headers
from .serving import Served

ERRORS: Final[dict[ErrorCode, tuple[str, str | None]]] = {
    ErrorCode.INVALID_ARGUMENT: ("invalid_request_error", None),
    ErrorCode.UNAUTHENTICATED: ("authentication_error", "invalid_api_key"),
    ErrorCode.PERMISSION_DENIED: ("permission_error", "permission_denied"),
    ErrorCode.NOT_FOUND: ("invalid_request_error", "model_not_found"),
    ErrorCode.VALIDATION_REJECTED: ("invalid_request_error", "content_filter"),
    ErrorCode.RESOURCE_EXHAUSTED: ("rate_limit_error", "rate_limit_exceeded"),
    ErrorCode.CANCELLED: ("server_error", "cancelled"),
    ErrorCode.INTERNAL: ("server_error", "internal_error"),
    ErrorCode.STREAM_INTERRUPTED: ("server_error", "stream_interrupted"),
    ErrorCode.UNAVAILABLE: ("server_error", "unavailable"),
    ErrorCode.DEADLINE_EXCEEDED: ("server_error", "deadline_exceeded"),
}
"""``type`` and ``code`` of an error by its code."""


_IN_PLACE_OF_TEXT: Final = ("tool_calls", "function_call", "refusal", "audio")
"""Parts of a message beside which an empty text is null."""


def status_of(error: WireError) -> int:
    """The HTTP status: a rejection is 400 here, because the official clients know no 422 of that meaning."""
    if error.code is ErrorCode.VALIDATION_REJECTED:
        return HTTP_STATUS[ErrorCode.INVALID_ARGUMENT]
    return error.http_status


def error_body(error: WireError) -> dict[str, Any]:
    """``{"error": {message, type, param, code}}``, with the request id and what was delivered."""
    kind, code = ERRORS[error.code]
    field = error.details.get("field")
    body: dict[str, Any] = {
        "message": error.message,
        "type": kind,
        "param": field if isinstance(field, str) else None,
        "code": code,
    }
    if error.request_id is not None:
        body["request_id"] = error.request_id
    if error.code is ErrorCode.STREAM_INTERRUPTED:
        body["details"] = dict(error.details)
    return {"error": body}


class ChatFormat:
    """One exchange; ``now`` is Unix seconds, for ``created``."""

    def __init__(self, exchange: Exchange, now: float) -> None:
        self.shape: Shape | None = chat_shape
        self._exchange = exchange
        self._created = int(now)
        self._events = Events(exchange)
        self._request: Request | None = None

    async def finish(self, served: Served, *, close: bool = False) -> None:
        """See ``route_format.Format``."""
        streams = self._request is not None and self._request.stream
        result = served.result
        if streams and isinstance(result, Answer):
            with suppress(SinkStalledError):
                await self._finish_stream(served, result)
            self._events.end()
        elif isinstance(result, Answer):
            body = orjson.dumps(self._completion(served, result))
            self._exchange.answer(200, body, served_headers(served))
        elif self._events.begun:
            with suppress(SinkStalledError):
                await self._events.data({**error_body(result.error), **_trail(served)})
            self._events.end()
        else:
            headers = served_headers(served)
            status = status_of(result.error)
            _add_error_headers(headers, status, result.error)
            self._exchange.answer(status, orjson.dumps(error_body(result.error)), headers, close=close)

    async def emit(self, envelope: Envelope, delta: Delta) -> None:
        """One chunk; before the first goes the one that names the role."""
        if not self._events.begun:
            self._events.begin(envelope)
            content = None if delta.message and not delta.text else ""  # as OpenAI has it: no text so far
            await self._chunk(envelope, {"role": "assistant", "content": content})
        if delta.text:
            await self._chunk(envelope, {"content": delta.text})
        if delta.message:
            await self._chunk(envelope, _indexed(delta.message))

    def sink_of(self, request: Request, envelope: Envelope) -> Sink | None:
        """See ``route_format.Format``."""
        self._request = request
        return _ChatSink(self, envelope) if request.stream else None

    async def _finish_stream(self, served: Served, answer: Answer) -> None:
        if not self._events.begun:  # an answer without a word
            await self.emit(served.envelope, Delta())
        reason, logprobs = answer.metadata["finish_reason"], answer.metadata.get("logprobs")
        await self._chunk(served.envelope, {}, finish_reason=reason, logprobs=logprobs, trail=_trail(served))
        if self._request is not None and self._request.stream_usage:
            body = self._head(served.envelope, "chat.completion.chunk")
            await self._events.data({**body, **_origin(answer), "choices": [], "usage": _usage(answer)})
        await self._events.data("[DONE]")

    async def _chunk(
        self,
        envelope: Envelope,
        delta: dict[str, Any],
        *,
        finish_reason: str | None = None,
        logprobs: Any = None,
        trail: dict[str, Any] | None = None,
    ) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        body = {**self._head(envelope, "chat.completion.chunk"), "choices": [choice]}
        if trail:
            body |= trail
        if self._request is not None and self._request.stream_usage:
            body["usage"] = None
        await self._events.data(body)

    def _completion(self, served: Served, answer: Answer) -> dict[str, Any]:
        parts = answer.metadata.get("message")
        extra = parts if isinstance(parts, dict) else {}
        without_text = None if any(extra.get(name) for name in _IN_PLACE_OF_TEXT) else ""
        message = {**extra, "role": "assistant", "content": answer.output or without_text}
        choice = {
            "index": 0,
            "message": {"refusal": None, **message},
            "logprobs": answer.metadata.get("logprobs"),
            "finish_reason": answer.metadata["finish_reason"],
        }
        head = self._head(served.envelope, "chat.completion")
        return {
            **head,
            **_origin(answer),
            "model": answer.metadata["model"] or head["model"],
            "choices": [choice],
            "usage": _usage(answer),
            **_trail(served),
        }

    def _head(self, envelope: Envelope, kind: str) -> dict[str, Any]:
        model = None if self._request is None else self._request.model
        return {
            "id": f"chatcmpl-{envelope.request_id}",
            "object": kind,
            "created": self._created,
            "model": model or "",
        }


def _trail(served: Served) -> dict[str, Any]:
    """The metadata with the trail of the request, where its caller asked for it."""
    return {"metadata": served.metadata} if served.trail_in_metadata else {}


def _origin(answer: Answer) -> dict[str, str]:
    """What the provider's own API said of the answer, where it did."""
    names = ("system_fingerprint", "service_tier")
    return {name: value for name in names if isinstance(value := answer.metadata.get(name), str)}


def _usage(answer: Answer) -> dict[str, Any]:
    """The counts, with what the tokens were spent on, where the provider says so."""
    details = answer.metadata.get("usage_details")
    given = details if isinstance(details, dict) else {}
    names = ("prompt_tokens_details", "completion_tokens_details")
    return {**answer.usage, **{name: given[name] for name in names if isinstance(given.get(name), dict)}}


class _ChatSink:
    def __init__(self, form: ChatFormat, envelope: Envelope) -> None:
        self._form = form
        self._envelope = envelope

    async def emit(self, delta: Delta) -> None:
        await self._form.emit(self._envelope, delta)


def _add_error_headers(headers: list[Header], status: int, error: WireError) -> None:
    """``x-should-retry`` is what the official clients ask before they repeat a 429 or 5xx by themselves."""
    add_error_headers(headers, status, error)
    if not error.retryable and (status == 429 or status >= 500):
        headers.append((b"x-should-retry", b"false"))


def answer_models(exchange: Exchange, models: tuple[str, ...]) -> None:
    """``/v1/models`` and ``/v1/models/{id}``: what the policies name without a wildcard."""
    wanted = exchange.path.removeprefix("/v1/models").removeprefix("/")
    if not wanted:
        exchange.answer_json(200, {"object": "list", "data": [_model(name) for name in models]})
    elif wanted in models:
        exchange.answer_json(200, _model(wanted))
    else:
        error = WireError.of(ErrorCode.NOT_FOUND, f"no policy names the model {wanted[:80]!r}")
        exchange.answer_json(404, error_body(error))


def answer_error(exchange: Exchange, error: WireError) -> None:
    """An error in the words of that API."""
    headers: list[Header] = []
    _add_error_headers(headers, status_of(error), error)
    exchange.answer_json(status_of(error), error_body(error), headers)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "beamline"}


def _indexed(message: Any) -> dict[str, Any]:
    """A delta's parts beside the text; tool calls without an index, as in a whole message, get theirs."""
    delta = {name: value for name, value in message.items() if name not in {"content", "role"}}
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [
            {"index": number, **call} for number, call in enumerate(calls) if isinstance(call, dict)
        ]
    return delta
