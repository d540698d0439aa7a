"""Refusing over HTTP before anything is made of a request: what an overloaded router answers with.

uvicorn makes a scope, an event and a task for each request; under three times the load that a router can
carry, that alone would take most of its time. So the protocol is asked once the headers are there: where the
gate refuses, the whole answer is written at once, and the body that follows is dropped as it arrives. Nothing
else differs from uvicorn's own protocol, and a request that is let through here never notices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from beamline_contract.wire import MAX_BODY_BYTES

from .http_protocol import ANSWERED, BoundedProtocol
from .openai_chat import error_body
from .refusal import Refusal, template

Shed = Callable[[str], Refusal | None]
"""The refusal of one request at this door, or None; counts it."""

_HEAD: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n"
    b"retry-after: 1\r\nx-request-id: %b\r\nconnection: %b\r\ncontent-length: %d\r\n\r\n%b"
)
GOODBYE: Final = (b"connection", b"close")
"""Among the server's own headers while it stops: clients that keep their connection leave with the answer."""
_CHAT: Final = b"/v1/chat/completions"
_PATHS: Final = frozenset({_CHAT, b"/v1/route"})


def shedding(shed: Shed, id_of: Callable[[Mapping[str, str]], bytes]) -> type[BoundedProtocol]:
    """A protocol that asks ``shed`` first. ``id_of`` gives request ids."""

    class ShedProtocol(BoundedProtocol):
        def head_complete(self) -> None:
            """The head of a request is there; what comes next is its body."""
            path = self.url
            if path in _PATHS and self._free():
                refusal = shed("http")
                if refusal is not None:
                    self._refuse(refusal, chat=path == _CHAT)
                    return
            super().head_complete()

        def _refuse(self, refusal: Refusal, *, chat: bool) -> None:
            request_id = id_of(_request_id_header(self.headers))
            body = (_chat(refusal) if chat else refusal.plain) % request_id
            stays = GOODBYE not in self.server_state.default_headers
            keep = stays and self.parser.should_keep_alive() and _short(self.headers)
            state = b"keep-alive" if keep else b"close"
            self.transport.write(_HEAD % (request_id, state, len(body), body))
            self.cycle: Any = ANSWERED
            if keep:
                self.on_response_complete()
            else:
                self.transport.close()

    return ShedProtocol


@cache
def _chat(refusal: Refusal) -> bytes:
    """In OpenAI's words; a router has two refusals."""
    return template(error_body(refusal.error))


def _request_id_header(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    for name, value in headers:
        if name == b"x-request-id":
            return {"x-request-id": value.decode("latin-1")}
    return {}


def _short(headers: list[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"content-length":
            return value.isdigit() and int(value[:20]) <= MAX_BODY_BYTES
    return False
