"""The one gate: bytes and headers of a front door become a :class:`Request`, or a :class:`WireError` that
says why not.

What passes here is trusted by everything behind it, so nothing is validated a second time. The order is
fixed: size, depth, JSON, shape, fields; the first fault wins, because a caller mends one request at a time.
Depth is judged *before* the parser recurses: brackets outside of strings are kept, the innermost pairs are
removed 32 times, and what is left is deeper than 32 levels (or not balanced, which no parser would take
either). It is linear in the size of the body, whatever the body is.

Nothing here reads a clock: ``now`` arrives as an argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, Final, Protocol

import orjson

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import MODEL_PATTERN, TENANT_PATTERN, object_id
from beamline_contract.wire import MAX_BODY_BYTES, MAX_JSON_DEPTH

from .deadline import expired, remaining_ms
from .envelope import Envelope
from .reading import brackets_within, depth
from .request import Request, Trace
from .twice import REQUEST_FIELDS, says_twice

DEFAULT_TENANT: Final = "default"
"""The tenant of a request that names none, so that a single-tenant set-up needs no word of it."""
Shape = Callable[[object, Mapping[str, str]], object]
"""A parsed body and the headers become a body of ``POST /v1/route``, or a :class:`WireError`."""

NEAR: Final = 0.8
"""From this share of a limit on a caller is warned."""
_NEAR_DEPTH: Final = ceil(NEAR * MAX_JSON_DEPTH)

_FIELDS: Final = frozenset(
    {"tenant_id", "environment", "model", "policy", "prompt", "messages", "parameters", "context", "stream"}
)
_KNOWN: Final = _FIELDS | {"stream_usage"}
_TOO_DEEP: Final = f"the request body must be balanced JSON of at most {MAX_JSON_DEPTH} levels"
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_TENANT: Final = re.compile(TENANT_PATTERN)
_MODEL: Final = re.compile(MODEL_PATTERN)
_ENVIRONMENT: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_POLICY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TYPE_WORDS: Final = {
    str: "text",
    dict: "an object",
    list: "a list",
    bool: "true or false",
    type(None): "null",
}


class Bound(Protocol):
    """What decides for whom a request is: an API key."""

    @property
    def tenant(self) -> str:
        """The only tenant."""
        ...

    @property
    def environment(self) -> str | None:
        """The only environment; None: any."""
        ...


def read_request(
    body: bytes,
    headers: Mapping[str, str],
    envelope: Envelope,
    *,
    now: float,
    unix_ms: float,
    shape: Shape | None = None,
    bound: Bound | None = None,
) -> Request | WireError:
    """A valid request, or INVALID_ARGUMENT / DEADLINE_EXCEEDED. ``headers`` have lower-case names.

    ``bound`` decides tenant and environment; a body that names others is PERMISSION_DENIED. ``shape`` turns
    another door's body into the one of ``POST /v1/route`` before its fields are judged.

    ``now`` is monotonic seconds, ``unix_ms`` the wall clock in milliseconds (for Beamline-Deadline-At).
    """
    if len(body) > MAX_BODY_BYTES:
        return too_large(len(body)).at(request_id=envelope.request_id)
    left = remaining_ms(headers, unix_ms)
    if isinstance(left, WireError):
        return left.at(request_id=envelope.request_id)
    if left is not None and left <= 0:
        return expired().at(request_id=envelope.request_id)
    data = _parse(body)
    if shape is not None and not isinstance(data, WireError):
        data = _shaped(shape(data, headers), body)
    fault = data if isinstance(data, WireError) else _fault_of(data)
    if fault is not None:
        return fault.at(request_id=envelope.request_id)
    assert isinstance(data, dict)
    if bound is not None:
        foreign = _bind(data, bound)
        if foreign is not None:
            return foreign.at(request_id=envelope.request_id)
    policy = data.get("policy")
    return Request(
        request_id=envelope.request_id,
        tenant_id=data.get("tenant_id") or DEFAULT_TENANT,
        deadline=None if left is None else now + left / 1000.0,
        prompt=data.get("prompt"),
        messages=data.get("messages"),
        environment=data.get("environment"),
        model=data.get("model"),
        policy=None if policy is None else object_id(policy),
        parameters=data.get("parameters") or {},
        context=data.get("context") or {},
        headers=headers,
        trace_id=envelope.trace_id,
        traceparent=envelope.traceparent,
        tracestate=envelope.tracestate,
        baggage=envelope.baggage,
        trace=Trace(envelope.trace_id, envelope.traceparent[-2:], envelope.tracestate, envelope.baggage),
        stream=data.get("stream") is True,
        stream_usage=data.get("stream_usage") is True,
        spans=envelope.spans,
    )


def near_limits(body: bytes) -> tuple[str, ...]:
    """A sentence for each limit of which a body that passed has used four fifths or more."""
    found: tuple[str, ...] = ()
    if len(body) >= NEAR * MAX_BODY_BYTES:
        found = (
            f"request body: {len(body)} of at most {MAX_BODY_BYTES} bytes; "
            "shorten the history, or send a reference instead of the text",
        )
    if too_deep(body, _NEAR_DEPTH - 1):
        found = (*found, f"JSON depth: {_NEAR_DEPTH} or more of at most {MAX_JSON_DEPTH} levels; flatten it")
    return found


def too_large(size: int | None = None) -> WireError:
    """INVALID_ARGUMENT that becomes 413. ``size`` in bytes where it is known."""
    seen = "" if size is None else f", got {size}"
    return WireError.of(
        ErrorCode.INVALID_ARGUMENT,
        f"the request body may have at most {MAX_BODY_BYTES} bytes{seen}",
        details={"http_status": 413, "max_bytes": MAX_BODY_BYTES},
    )


def too_deep(body: bytes, levels: int = MAX_JSON_DEPTH) -> bool:
    """Whether the JSON text nests deeper than ``levels``, or its brackets are not balanced."""
    if brackets_within(body, levels):
        return False
    brackets = _STRING.sub(b"", body).translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _bind(data: dict[str, Any], bound: Bound) -> WireError | None:
    """Writes what the caller's key decides into the body, or says what the body must not name."""
    for field, decided in (("tenant_id", bound.tenant), ("environment", bound.environment)):
        if decided is None:
            continue
        named = data.get(field)
        if named is not None and named != decided:
            return WireError.of(
                ErrorCode.PERMISSION_DENIED,
                f"{field} is {named[:80]!r}, but the API key is for {decided!r}: "
                "leave it out, or use another key",
                details={"field": field},
                attempts=0,
            )
        data[field] = decided
    return None


def _parse(body: bytes) -> object:
    if too_deep(body):
        return _invalid(_TOO_DEEP)
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _invalid(
            f"the request body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        )
    if says_twice(body, REQUEST_FIELDS):
        return _invalid("the request body says a key twice: leave one of them out")
    return data


def _shaped(data: object, body: bytes) -> object:
    """``data``, which a shape made of ``body``: what it puts below ``parameters`` lies a level deeper there,
    and an extension would refuse what it is sent. Only a body that may be that deep is looked at.
    """
    if brackets_within(body, MAX_JSON_DEPTH - 1) or isinstance(data, WireError):
        return data
    return _invalid(_TOO_DEEP) if depth(data) > MAX_JSON_DEPTH else data


def _fault_of(data: object) -> WireError | None:
    """The first thing wrong with the parsed body, by field."""
    if not isinstance(data, dict):
        return _invalid(f"the request body must be a JSON object, got {_word(data)}")
    if not _KNOWN.issuperset(data):
        name = min(data.keys() - _KNOWN)
        return _invalid(f"unknown field {name[:80]!r}; known are {', '.join(sorted(_FIELDS))}", name[:80])
    for field, pattern, rule in _TEXT_FIELDS:
        value = data.get(field)
        if value is None:
            continue
        if not isinstance(value, str):
            return _invalid(f"{field} must be text, got {_word(value)}", field)
        if not pattern.fullmatch(value):
            return _invalid(f"{field} must be {rule}, got {value[:80]!r}", field)
    stream = data.get("stream")
    if stream is not None and not isinstance(stream, bool):
        return _invalid(f"stream must be true or false, got {_word(stream)}", "stream")
    for field in ("parameters", "context"):
        value = data.get(field)
        if value is not None and not isinstance(value, dict):
            return _invalid(f"{field} must be an object, got {_word(value)}", field)
    return _prompt_fault(data.get("prompt"), data.get("messages"))


def _prompt_fault(prompt: object, messages: object) -> WireError | None:
    if (prompt is None) == (messages is None):
        found = "neither" if prompt is None else "both"
        return _invalid(f"exactly one of prompt and messages is required, got {found}", "prompt")
    if prompt is not None:
        return (
            None
            if isinstance(prompt, str)
            else _invalid(f"prompt must be text, got {_word(prompt)}", "prompt")
        )
    if not isinstance(messages, list):
        return _invalid(f"messages must be a list, got {_word(messages)}", "messages")
    if not messages:
        return _invalid("messages must have at least one entry", "messages")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            return _invalid(
                f"messages[{number}] must be an object, got {_word(message)}", f"messages[{number}]"
            )
        if not isinstance(message.get("role"), str):
            return _invalid(f"messages[{number}].role must be text", f"messages[{number}].role")
    return None


_TEXT_FIELDS: Final[tuple[tuple[str, re.Pattern[str], str], ...]] = (
    ("tenant_id", _TENANT, "1 to 128 of letters, digits and ._:-"),
    ("environment", _ENVIRONMENT, "1 to 63 of letters, digits and ._-"),
    ("model", _MODEL, "1 to 256 of letters, digits and ._:/-"),
    ("policy", _POLICY, "the name or id of a policy: lower case letters, digits, - and _, at most 63"),
)


def _word(value: object) -> str:
    return _TYPE_WORDS.get(type(value), "a number")


def _invalid(message: str, field: str | None = None) -> WireError:
    details: dict[str, Any] = {} if field is None else {"field": field}
    return WireError.of(ErrorCode.INVALID_ARGUMENT, message, details=details)
