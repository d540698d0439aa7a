"""The closed list of errors, in gRPC's words, and the one table that maps them to HTTP.

Every failure that leaves a component is one :class:`WireError`: a code from :class:`ErrorCode`, a sentence
for people, whether the same request may be tried again, and where it happened. The sentence never holds a
prompt, a key, or an upstream's raw text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


class ErrorCode(StrEnum):
    """Why a request failed. Declared once; the value is the word on the wire."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    """The request itself is wrong; sending it again will not help."""
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """No credentials, or ones that are not accepted."""
    PERMISSION_DENIED = "PERMISSION_DENIED"
    """Known, but not allowed."""
    NOT_FOUND = "NOT_FOUND"
    """No policy, model or extension goes by that name."""
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    """A rate or concurrency limit; retry_after_ms says when to come back."""
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    """The time ran out, of one step or of the whole request."""
    UNAVAILABLE = "UNAVAILABLE"
    """Nobody answers: no responder, breaker open, connection lost, upstream overloaded."""
    CANCELLED = "CANCELLED"
    """The caller went away."""
    VALIDATION_REJECTED = "VALIDATION_REJECTED"
    """A validator said no; the provider was not called."""
    STREAM_INTERRUPTED = "STREAM_INTERRUPTED"
    """A stream broke after its first chunk had been delivered."""
    INTERNAL = "INTERNAL"
    """A fault of Beamline or of an extension."""


HTTP_STATUS: Final[dict[ErrorCode, int]] = {
    ErrorCode.INVALID_ARGUMENT: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.RESOURCE_EXHAUSTED: 429,
    ErrorCode.DEADLINE_EXCEEDED: 504,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.CANCELLED: 499,
    ErrorCode.VALIDATION_REJECTED: 422,
    ErrorCode.STREAM_INTERRUPTED: 502,
    ErrorCode.INTERNAL: 500,
}
"""Status of ``POST /v1/route`` by code (contract: "Errors over HTTP")."""

RETRYABLE_BY_DEFAULT: Final = frozenset(
    {
        ErrorCode.RESOURCE_EXHAUSTED,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.UNAVAILABLE,
        ErrorCode.INTERNAL,
    }
)

CLIENT_FAULTS: Final = frozenset(
    {
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.NOT_FOUND,
        ErrorCode.CANCELLED,
        ErrorCode.VALIDATION_REJECTED,
    }
)
"""Answers that say nothing about the extension's health: they never move a breaker nor cause a fallback."""

FOREIGN_CODES: Final[dict[str, ErrorCode]] = {
    "internal_error": ErrorCode.INTERNAL,
    "provider_error": ErrorCode.UNAVAILABLE,
}
"""Codes that authors outside this project are known to send; anything else unknown is INTERNAL."""

MAX_MESSAGE_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class WireError:
    """One failure, as it travels in ``{"error": {...}}``.

    ``retry_after_ms`` is None where nobody said how long to wait. ``attempts`` counts calls made, 0 when
    refused before any.
    """

    code: ErrorCode
    message: str
    retryable: bool = False
    retry_after_ms: int | None = None
    step: str | None = None
    extension_id: str | None = None
    attempts: int | None = None
    request_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, code: ErrorCode, message: str, **attributes: Any) -> WireError:
        """An error whose ``retryable`` follows from its code unless it is given."""
        attributes.setdefault("retryable", code in RETRYABLE_BY_DEFAULT)
        return cls(code=code, message=message, **attributes)

    @classmethod
    def from_wire(cls, data: object) -> WireError:
        """Reads what an extension sent under ``error``. Never raises: what is malformed becomes INTERNAL."""
        if not isinstance(data, Mapping):
            return cls.of(ErrorCode.INTERNAL, "the extension sent an error that is not an object")
        raw = data.get("code")
        code = ErrorCode.INTERNAL
        if isinstance(raw, str):
            code = (
                ErrorCode(raw) if raw in ErrorCode.__members__ else FOREIGN_CODES.get(raw, ErrorCode.INTERNAL)
            )
        message = data.get("message")
        retryable = data.get("retryable")
        retry_after = data.get("retry_after_ms")
        details = data.get("details")
        return cls(
            code=code,
            message=message[:MAX_MESSAGE_LENGTH] if isinstance(message, str) else code.value,
            retryable=retryable if isinstance(retryable, bool) else code in RETRYABLE_BY_DEFAULT,
            retry_after_ms=_whole_ms(retry_after),
            details=details if isinstance(details, Mapping) else {},
        )

    def to_wire(self) -> dict[str, Any]:
        """The object under ``error``: set fields only."""
        wire: dict[str, Any] = {"code": self.code.value, "message": self.message, "retryable": self.retryable}
        for name in ("retry_after_ms", "step", "extension_id", "attempts", "request_id"):
            value = getattr(self, name)
            if value is not None:
                wire[name] = value
        if self.details:
            wire["details"] = dict(self.details)
        return wire

    def at(self, **attributes: Any) -> WireError:
        """A copy that says where it happened: step, extension_id, attempts, request_id."""
        return replace(self, **attributes)

    @property
    def http_status(self) -> int:
        """Status for ``POST /v1/route``; ``details["http_status"]`` may make 400 a 413 or 415."""
        if self.code is ErrorCode.INVALID_ARGUMENT:
            wanted = self.details.get("http_status")
            if wanted in (413, 415):  # a tuple: what an extension sent may not be hashable
                return int(wanted)
        return HTTP_STATUS[self.code]


def _whole_ms(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        return None
    return int(value)
