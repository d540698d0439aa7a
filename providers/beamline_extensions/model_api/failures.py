"""From what an SDK raises to the closed list of errors, in one table.

The text of an upstream's error never goes on: it may repeat the prompt, or a piece of the key. What goes on
is a sentence of ours and, in ``details``, the HTTP status, the upstream's own error code where it looks like
one, the field it complained about, and its request id for a ticket.

Whether another try makes sense follows the SDKs' own rule (408, 409, 429 and 5xx), with two exceptions: an
exhausted quota does not come back by waiting, and an answer that can't be read was computed and paid for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

from beamline_contract.errors import ErrorCode
from beamline_contract.wire import MAX_RETRY_AFTER_MS
from beamline_sdk import ExtensionError

BY_STATUS: Final[dict[int, tuple[ErrorCode, bool, str]]] = {
    400: (ErrorCode.INVALID_ARGUMENT, False, "the model API did not accept the request"),
    401: (ErrorCode.UNAUTHENTICATED, False, "the model API did not accept the provider's key"),
    402: (ErrorCode.PERMISSION_DENIED, False, "the model API asks for a settled bill"),
    403: (ErrorCode.PERMISSION_DENIED, False, "the provider's key may not do this"),
    404: (ErrorCode.NOT_FOUND, False, "the model API knows no such model or path"),
    408: (ErrorCode.DEADLINE_EXCEEDED, True, "the model API gave up waiting for the request"),
    409: (ErrorCode.UNAVAILABLE, True, "the model API reports a conflict"),
    413: (ErrorCode.INVALID_ARGUMENT, False, "the request is too large for the model API"),
    422: (ErrorCode.INVALID_ARGUMENT, False, "the model API can't process the request"),
    429: (ErrorCode.RESOURCE_EXHAUSTED, True, "the model API's rate limit is reached"),
    500: (ErrorCode.UNAVAILABLE, True, "the model API failed"),
    502: (ErrorCode.UNAVAILABLE, True, "the model API's gateway failed"),
    503: (ErrorCode.UNAVAILABLE, True, "the model API is not available"),
    504: (ErrorCode.DEADLINE_EXCEEDED, True, "the model API did not answer in time"),
    529: (ErrorCode.UNAVAILABLE, True, "the model API is overloaded"),
}
"""Code, retryable and sentence for each HTTP status that the APIs document."""

STATUS_BY_TYPE: Final[dict[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "timeout_error": 504,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "overloaded_error": 529,
}
"""The status that an error would have had, for one that comes inside of a stream that began with 200."""

NO_WAITING: Final = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "enforced_spend_limit_reached"}
)
"""Codes of a 429 that waiting does not mend."""
_WORD: Final = re.compile(r"[a-z][a-z_]{1,63}")
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]]{0,79}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")


class UpstreamError(ExtensionError):
    """A failure of the model API. ``status`` is HTTP's where there was one; ``outcome`` is for the metric."""

    def __init__(
        self, code: ErrorCode, message: str, *, outcome: str, status: int | None = None, **more: Any
    ) -> None:
        super().__init__(code, message, **more)
        self.outcome = outcome
        self.status = status


def of_status(
    status: int,
    headers: Mapping[str, str],
    body: object,
    *,
    unix_s: float,
    leaks: Callable[[str], bool],
    request_id: str | None,
) -> UpstreamError:
    """The error for an answer of 3xx, 4xx or 5xx. ``leaks`` says whether a text holds a piece of a key."""
    words = error_words(body)
    if 300 <= status < 400:
        code, retryable, message = (
            ErrorCode.UNAVAILABLE,
            False,
            "the model API answered with a redirect, which is not followed",
        )
    elif status in BY_STATUS:
        code, retryable, message = BY_STATUS[status]
    elif status >= 500:
        code, retryable, message = BY_STATUS[500]
    else:
        code, retryable, message = BY_STATUS[400]
    details: dict[str, Any] = {"http_status": status}
    said = (
        ("upstream_code", _WORD, words.get("code") or words.get("type")),
        ("field", _FIELD, words.get("param")),
        ("upstream_request_id", _REQUEST_ID, request_id),
    )
    details |= {
        name: value
        for name, pattern, value in said
        if isinstance(value, str) and pattern.fullmatch(value) and not leaks(value)
    }
    if details.get("upstream_code") in NO_WAITING:
        retryable, message = False, "the account's quota at the model API is used up"
    wait = retry_after_ms(headers, unix_s) if retryable else None
    return UpstreamError(
        code,
        message,
        outcome="api_error",
        status=status,
        retryable=retryable,
        retry_after_ms=wait,
        details=details,
    )


def error_words(body: object) -> Mapping[str, Any]:
    """The object that holds type, code and param, wherever the SDK left it; empty where there is none."""
    for _ in range(2):
        if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
            body = body["error"]
    return body if isinstance(body, Mapping) else {}


def status_of_words(body: object) -> int:
    """The status for an error inside of a stream."""
    words = error_words(body)
    for name in ("code", "type"):
        value = words.get(name)
        if isinstance(value, str) and value in STATUS_BY_TYPE:
            return STATUS_BY_TYPE[value]
    return 500


def retry_after_ms(headers: Mapping[str, str], unix_s: float) -> int | None:
    """Milliseconds from ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date), at most 300000.

    None where neither can be read. Header names are lower-case. ``unix_s`` is the wall clock, for a date.
    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        return min(int(seconds), MAX_RETRY_AFTER_MS)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is None and text:
        try:
            date = parsedate_to_datetime(text)
            seconds = max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - unix_s)
        except (ValueError, OverflowError, OSError):
            return None
    return None if seconds is None else int(min(seconds * 1000, MAX_RETRY_AFTER_MS))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def undecodable(what: str) -> UpstreamError:
    """The API's answer is not what its reference says. Not retryable: it was computed, and is paid for."""
    return UpstreamError(
        ErrorCode.INTERNAL,
        f"the model API's answer can't be read: {what}",
        outcome="decode_error",
        retryable=False,
    )


def garbled() -> UpstreamError:
    """What came is not even HTTP: nothing says that the request was executed."""
    return UpstreamError(
        ErrorCode.UNAVAILABLE, "the model API's answer is not HTTP", outcome="decode_error", retryable=True
    )


def interrupted() -> UpstreamError:
    """The connection broke, or could not be made."""
    return UpstreamError(
        ErrorCode.UNAVAILABLE, "the connection to the model API broke", outcome="api_error", retryable=True
    )


def forbidden() -> UpstreamError:
    """The address rule said no."""
    return UpstreamError(
        ErrorCode.PERMISSION_DENIED,
        "base_url leads to an address that must not be connected to: see BEAMLINE_ALLOWED_NETWORKS",
        outcome="api_error",
        retryable=False,
    )


def too_late() -> UpstreamError:
    """The deadline passed while the API was at work."""
    return UpstreamError(
        ErrorCode.DEADLINE_EXCEEDED,
        "the model API did not answer in time",
        outcome="api_error",
        retryable=True,
    )
