"""Refusals that are written without an exchange: overload, and what is no request.

To make an exchange, a task and an answer of each request would, under three times the load that a router can
carry, take most of its time. So the gate is asked once a head is there, and the whole answer is one
formatting; the body that follows is dropped as it arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import orjson

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.wire import MAX_BODY_BYTES

from .http_exchange import Header
from .http_head import PATHS
from .openai_chat import error_body
from .refusal import Refusal, template

Shed = Callable[[str], Refusal | None]
"""The refusal of one request at this door, or None; counts it."""

_OVERLOADED: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n"
    b"retry-after: 1\r\nx-request-id: %b\r\nconnection: %b\r\ncontent-length: %d\r\n\r\n%b"
)
_CHAT: Final = "/v1/chat/completions"
_PATHS: Final = frozenset(PATHS.values())


class Shedding:
    """Asks ``shed`` before anything is made of a request. ``id_of`` gives request ids, ``rest_s`` the seconds
    for which who is refused is not read.
    """

    def __init__(
        self,
        shed: Shed,
        id_of: Callable[[Mapping[str, str]], bytes],
        rest_s: Callable[[], float],
    ) -> None:
        self._shed = shed
        self._rest_s = rest_s
        self._id_of = id_of

    def refusal(self, path: str, headers: list[Header], *, keep: bool) -> tuple[bytes, bool, float] | None:
        """The bytes of the answer; whether the connection stays, only where ``keep`` says that it may and the
        body is worth receiving; and for how many seconds it is not read.
        """
        if path not in _PATHS:
            return None
        refusal = self._shed("http")
        if refusal is None:
            return None
        request_id = self._id_of(_request_id_header(headers))
        body = (_chat(refusal) if path == _CHAT else refusal.plain) % request_id
        stays = keep and _short(headers)
        state = b"keep-alive" if stays else b"close"
        return _OVERLOADED % (request_id, state, len(body), body), stays, self._rest_s()


def no_request(status: str, message: str) -> bytes:
    """The answer to what is not HTTP, in both doors' words: whose request it was to be nobody knows."""
    error = WireError.of(ErrorCode.INVALID_ARGUMENT, message)
    body = orjson.dumps({"error": {**error.to_wire(), "type": "invalid_request_error"}})
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@cache
def _chat(refusal: Refusal) -> bytes:
    """In OpenAI's words; a router has two refusals."""
    return template(error_body(refusal.error))


def _request_id_header(headers: list[Header]) -> dict[str, str]:
    for name, value in headers:
        if name == b"x-request-id":
            return {"x-request-id": value.decode("latin-1")}
    return {}


def _short(headers: list[Header]) -> bool:
    for name, value in headers:
        if name == b"content-length":
            return value.isdigit() and int(value[:20]) <= MAX_BODY_BYTES
    return False
