"""Which failure an exception of an SDK, or of what lies below it, stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from beamline_sdk import ExtensionError

from . import failures
from .connection import GarbageError
from .failures import UpstreamError
from .sdk import Sdk, StatusError
from .transport import ForbiddenAddressError


def translated(
    error: Exception, sdk: Sdk, *, unix_s: float, leaks: Callable[[str], bool]
) -> UpstreamError | None:
    """The one error for ``error``; ``unix_s`` is the wall clock, ``leaks`` knows the keys.

    None for an exception that no SDK is known to raise, and no parser: a fault of ours.
    """
    if isinstance(error, UpstreamError):
        return error
    if isinstance(error, ExtensionError):
        return UpstreamError(error.code, error.message, outcome="api_error", retryable=error.retryable)
    for cause in _chain(error):
        if isinstance(cause, ForbiddenAddressError):
            return failures.forbidden()
        if isinstance(cause, GarbageError):
            return failures.garbled()
        if isinstance(cause, httpx2.ConnectTimeout):
            return failures.interrupted()
    if isinstance(error, StatusError | sdk.api_error):
        return _said(error, unix_s, leaks)
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return failures.too_late()
    if isinstance(error, httpx2.TransportError | httpx2.StreamError):
        return failures.interrupted()
    if isinstance(error, ValueError | RecursionError | httpx2.DecodingError):
        return failures.undecodable("an event is not JSON")
    return None


def _said(error: Any, unix_s: float, leaks: Callable[[str], bool]) -> UpstreamError:
    """What the API itself says: a status, or an error event in a stream."""
    body = getattr(error, "body", None)
    response = getattr(error, "response", None)
    if not isinstance(response, httpx2.Response):
        if body is None:
            return failures.interrupted()
        status, headers = failures.status_of_words(body), httpx2.Headers()
    else:
        status, headers = response.status_code, response.headers
        if status < 300:  # an error event in a stream that began well
            status = failures.status_of_words(body)
    request_id = (
        getattr(error, "request_id", None) or headers.get("x-request-id") or headers.get("request-id")
    )
    return failures.of_status(status, headers, body, unix_s=unix_s, leaks=leaks, request_id=request_id)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
