"""From what an author's code returned or raised to the bytes of one answer.

Text of an unexpected exception stays here, because it may hold a prompt or a key: the caller reads INTERNAL,
the log reads type and place, at most once a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import HEADER_TRACEPARENT, HEADER_TRACESTATE
from beamline_contract.wire import MAX_REPLY_BYTES

from .extension import Extension, Post
from .logs import place_of
from .request import ExtensionRequest
from .results import ExtensionError, Patch, ProviderReply, Verdict

log = structlog.get_logger()

_MAX_HEADER_CHARS: Final = 512
_HEADER_RESERVE: Final = 64
_FAULT_LOG_SECONDS: Final = 1.0


@dataclass(slots=True)
class CallStats:
    """Counters for ``$SRV.STATS``. ``processing_ns`` is the sum over all requests."""

    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0


class Answers:
    """The answers of one extension. ``max_bytes`` is the largest message that the server takes."""

    def __init__(
        self, extension: Extension[Any, Any], extension_id: str, stats: CallStats, max_bytes: int
    ) -> None:
        self.max_bytes = max_bytes
        self._extension = extension
        self._extension_id = extension_id
        self._stats = stats
        self._fault_logged_at = -_FAULT_LOG_SECONDS
        self._faults_unlogged = 0

    def result(
        self, request: ExtensionRequest, config: Any, result: object, seconds: float
    ) -> tuple[bytes, str, tuple[int, int] | None]:
        """The bytes of a result, its status, and a provider's tokens. Raises :class:`ExtensionError`,
        TypeError.
        """
        status, tokens = "ok", None
        match self._extension.kind, result:
            case "provider", ProviderReply():
                wire = result.to_wire(
                    request.provider_id or self._extension_id, trace_id(request), seconds * 1000
                )
                tokens = (result.prompt_tokens, result.completion_tokens)
            case "validator", Verdict():
                wire = result.to_wire()
                status = "ok" if result.passed else "rejected"
            case "pre" | "post", Patch():
                wire = result.to_wire()
            case "pre" | "post", None:
                wire = {}
            case kind, other:
                raise _WrongResultError(f"a {kind} returned {type(other).__name__}")
        if request.part == "window" and isinstance(self._extension, Post) and "hold" not in wire:
            reach = self._extension.match_length(config)
            wire["max_match_length"] = MAX_REPLY_BYTES if reach is None else reach
        reply = orjson.dumps(wire)
        if len(reply) > self.max_bytes - _HEADER_RESERVE - 2 * _MAX_HEADER_CHARS:
            raise ExtensionError(
                ErrorCode.INTERNAL,
                f"the answer of {self._extension_id} is larger than 1 MiB",
                retryable=False,
            )
        return reply, status, tokens

    def fault(self, request: ExtensionRequest, failure: Exception) -> WireError:
        """The error for what an author's code raised unexpectedly, which is logged by type and place."""
        now = time.monotonic()
        if now - self._fault_logged_at >= _FAULT_LOG_SECONDS:
            log.error(
                "extension.failed",
                extension_id=self._extension_id,
                trace_id=request.trace_id[:128],
                tenant_id=request.tenant_id[:128],
                error=type(failure).__name__,
                at=place_of(failure),
                unlogged=self._faults_unlogged,
            )
            self._fault_logged_at, self._faults_unlogged = now, 0
        else:
            self._faults_unlogged += 1
        return WireError.of(ErrorCode.INTERNAL, f"{self._extension_id} failed")

    def failure(self, error: WireError) -> bytes:
        """The bytes of ``error``, which is counted."""
        self._stats.errors += 1
        self._stats.last_error = error.code.value
        try:
            return orjson.dumps({"error": error.at(extension_id=self._extension_id).to_wire()})
        except TypeError:  # details that are no JSON
            bare = WireError(error.code, error.message, error.retryable, error.retry_after_ms)
            return orjson.dumps({"error": bare.to_wire()})


class _WrongResultError(TypeError):
    """The author's function returned something its kind does not return."""


def trace_headers(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    """The trace context of the request, for its reply; None where there is none."""
    if not headers or HEADER_TRACEPARENT not in headers:
        return None
    kept = {
        name: headers[name]
        for name in (HEADER_TRACEPARENT, HEADER_TRACESTATE)
        if name in headers and len(headers[name]) <= _MAX_HEADER_CHARS and headers[name].isascii()
    }
    return kept or None


def trace_id(request: ExtensionRequest) -> str:
    """The request's trace id; of a caller that only sent ``traceparent``, the one in there."""
    if request.trace_id:
        return request.trace_id
    parts = request.headers.get(HEADER_TRACEPARENT, "").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""
