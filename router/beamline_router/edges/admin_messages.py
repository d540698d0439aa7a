"""What an admin request must look like: each verb with its fields, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import ADMIN_VERBS, REQUEST_ID_PATTERN, TENANT_PATTERN
from beamline_contract.wire import MAX_BODY_BYTES

from ..core.intake import too_deep
from .trails import MAX_WATCH_S

MAX_LIMIT: Final = 100
"""Trails in one answer, which so stays below NATS' limit."""
_FIELDS: Final[dict[str, frozenset[str]]] = {
    "status": frozenset(),
    "explain": frozenset({"request", "headers"}),
    "isolate": frozenset({"extension"}),
    "reset": frozenset({"extension"}),
    "traffic": frozenset(),
    "recent": frozenset({"limit", "policy", "extension", "tenants", "status", "q"}),
    "trace": frozenset({"request_id"}),
    "watch": frozenset({"watch", "seconds", "sample", "tenant", "content"}),
}
_EXTENSION: Final = re.compile(r"[a-z][a-z0-9_-]{0,252}")
_INSTANCE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_REQUEST_ID: Final = re.compile(REQUEST_ID_PATTERN[1:-1])
_TENANT: Final = re.compile(TENANT_PATTERN[1:-1])
_WORD: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
_TEXT: Final = re.compile(r"[^\x00-\x1f]{0,200}")
_MAX_HEADERS: Final = 64
_MAX_TENANTS: Final = 256


class AdminError(Exception):
    """A request that is answered with an error."""

    def __init__(self, error: WireError) -> None:
        super().__init__(error.message)
        self.error = error


def read(verb: str, body: bytes) -> dict[str, Any]:
    """The request, checked. Raises :class:`AdminError`."""
    allowed = _FIELDS.get(verb)
    if allowed is None:
        raise _invalid(f"there is no such verb; there are {', '.join(ADMIN_VERBS)}")
    if len(body) > MAX_BODY_BYTES + 4096:
        raise _invalid(f"an admin request may have at most {MAX_BODY_BYTES + 4096} bytes, got {len(body)}")
    if too_deep(body):
        raise _invalid("an admin request must be balanced JSON of at most 32 levels")
    try:
        asked = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise _invalid(f"the admin request is not JSON: {error.msg}") from None
    if not isinstance(asked, dict):
        raise _invalid("the admin request must be a JSON object")
    unknown = asked.keys() - allowed - {"instance"}
    if unknown:
        known = ", ".join(sorted(allowed | {"instance"}))
        raise _invalid(f"unknown field {min(unknown)[:80]!r}; known are {known}", min(unknown)[:80])
    _check_text(asked, "instance", _INSTANCE, "the id of a router, as status says it", required=False)
    if verb in {"isolate", "reset"}:
        _check_text(asked, "extension", _EXTENSION, "the id or name of an Extension", required=True)
    if verb == "explain":
        _check_explain(asked)
    elif verb == "recent":
        _check_recent(asked)
    elif verb == "trace":
        _check_text(asked, "request_id", _REQUEST_ID, "the id of a request", required=True)
    elif verb == "watch":
        _check_watch(asked)
    return asked


def _check_text(
    asked: Mapping[str, Any], field: str, pattern: re.Pattern[str], rule: str, *, required: bool
) -> None:
    value = asked.get(field)
    if value is None and not required:
        return
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _invalid(f"{field} must be {rule}", field)


def _check_explain(asked: Mapping[str, Any]) -> None:
    if not isinstance(asked.get("request"), dict):
        raise _invalid("request must be an object, as POST /v1/route takes it", "request")
    headers = asked.get("headers", {})
    if (
        not isinstance(headers, dict)
        or len(headers) > _MAX_HEADERS
        or not all(isinstance(value, str) for value in headers.values())
    ):
        raise _invalid(f"headers must be an object of at most {_MAX_HEADERS} texts", "headers")


def _check_recent(asked: Mapping[str, Any]) -> None:
    limit = asked.get("limit", MAX_LIMIT)
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise _invalid(f"limit must be a whole number from 1 to {MAX_LIMIT}", "limit")
    _check_text(asked, "policy", _EXTENSION, "the id of a policy", required=False)
    _check_text(asked, "extension", _EXTENSION, "the id of an Extension", required=False)
    _check_text(asked, "status", _WORD, "ok, error or an error code", required=False)
    _check_text(asked, "q", _TEXT, "text of at most 200 characters", required=False)
    tenants = asked.get("tenants")
    if tenants is None:
        return
    if (
        not isinstance(tenants, list)
        or len(tenants) > _MAX_TENANTS
        or not all(isinstance(one, str) and _TENANT.fullmatch(one) for one in tenants)
    ):
        raise _invalid(f"tenants must be a list of at most {_MAX_TENANTS} tenants", "tenants")


def _check_watch(asked: Mapping[str, Any]) -> None:
    _check_text(asked, "watch", _INSTANCE, "an id of the watch", required=True)
    for field, most in (("seconds", MAX_WATCH_S), ("sample", 1.0)):
        value = asked.get(field, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise _invalid(f"{field} must be a number from 0 to {most:g}", field)
    _check_text(asked, "tenant", _TENANT, "a tenant", required=False)
    if not isinstance(asked.get("content", False), bool):
        raise _invalid("content must be true or false", "content")


def _invalid(message: str, field: str | None = None) -> AdminError:
    details: dict[str, Any] = {} if field is None else {"field": field}
    return AdminError(WireError.of(ErrorCode.INVALID_ARGUMENT, message, details=details))
