"""Strict reading of what extensions answer. Their authors may be careless or hostile: nothing is taken on
trust.

A reader returns a value (:class:`ProviderReply`, :class:`Patch`, :class:`Verdict`) or a :class:`WireError`,
and never raises. A reply that is too large, too deep, not JSON or of wrong types is an INTERNAL error of that
extension and counts against it; it is not retried in place, because the work was done and would be billed
again. What an extension may not change is left out and named in ``dropped``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson

from beamline_contract.errors import MAX_MESSAGE_LENGTH, ErrorCode, WireError
from beamline_contract.names import ExtensionType
from beamline_contract.wire import MAX_JSON_DEPTH, MAX_REPLY_BYTES, MAX_RETRY_AFTER_MS, PROTECTED_FIELDS

from .reading import brackets_within, depth
from .twice import REPLY_FIELDS, says_twice
from .windows import WHOLE

MAX_COUNT: Final = 2**53
"""Largest number of tokens that is believed; beyond it JSON readers elsewhere lose digits."""
_PROVIDER_PROTECTED: Final = PROTECTED_FIELDS - {"provider_id"}
_NONE: Final[tuple[str, ...]] = ()


@dataclass(slots=True)
class ProviderReply:
    """A provider's answer. ``usage`` always has its three counts."""

    output: str
    usage: dict[str, int]
    metadata: dict[str, Any]
    dropped: tuple[str, ...] = _NONE


@dataclass(slots=True)
class Patch:
    """The fields that a pre or post step changes, checked; others are not in ``fields``.

    ``reach`` is a post step's ``max_match_length``, in characters; None where it states none.
    """

    fields: dict[str, Any]
    dropped: tuple[str, ...] = _NONE
    reach: int | None = None


@dataclass(slots=True)
class Verdict:
    """What a validator decided. ``details`` of one that passed are its notes."""

    passed: bool
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = _NONE


ReplyValue: TypeAlias = ProviderReply | Patch | Verdict
Reader: TypeAlias = Callable[[bytes, str], ReplyValue | WireError]


def read_provider(data: bytes, extension_id: str) -> ProviderReply | WireError:
    """A provider's reply: ``output`` must be text, ``usage`` and ``metadata`` may be absent."""
    reply = _object(data)
    if isinstance(reply, WireError):
        return reply
    output = reply.get("output")
    if not isinstance(output, str):
        return malformed("output must be text")
    usage = _usage(reply.get("usage"))
    if usage is None:
        return malformed("usage must hold whole numbers of 0 or more")
    metadata = reply.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        return malformed("metadata must be an object")
    dropped = _NONE
    if reply.get("provider_id", extension_id) != extension_id:
        dropped = ("provider_id",)
    if not _PROVIDER_PROTECTED.isdisjoint(reply):
        dropped += tuple(sorted(_PROVIDER_PROTECTED.intersection(reply)))
    return ProviderReply(output, usage, metadata or {}, dropped)


def read_pre(data: bytes, extension_id: str) -> Patch | WireError:
    """A pre step's patch: prompt or messages, parameters, context; ``output`` answers the request at once."""
    return _patch(data, _PRE_FIELDS)


def read_post(data: bytes, extension_id: str) -> Patch | WireError:
    """A post step's patch: output, context, metadata; and how far it looks. ``hold`` is to look at the whole
    answer.
    """
    patch = _patch(data, _POST_FIELDS)
    if isinstance(patch, WireError):
        return patch
    reach = patch.fields.pop("max_match_length", None)
    if reach is not None:
        if not _count(reach):
            return malformed("max_match_length must be a whole number of 0 or more")
        patch.reach = reach
    if patch.fields.pop("hold", False):
        patch.reach = WHOLE
    return patch


def read_verdict(data: bytes, extension_id: str) -> Verdict | WireError:
    """A validator's verdict. An error reply VALIDATION_REJECTED is a rejection as well."""
    reply = _object(data)
    if isinstance(reply, WireError):
        if reply.code is ErrorCode.VALIDATION_REJECTED:
            return Verdict(False, reply.message, reply.details)
        return reply
    dropped = _dropped(reply)
    verdict, details = reply.get("verdict"), reply.get("details")
    if verdict == "pass":
        return Verdict(True, details=details if isinstance(details, dict) else {}, dropped=dropped)
    if verdict != "reject":
        return malformed("verdict must be pass or reject")
    reason = reply.get("reason")
    if reason is not None and not isinstance(reason, str):
        return malformed("reason must be text")
    if details is not None and not isinstance(details, dict):
        return malformed("details must be an object")
    return Verdict(False, (reason or "")[:MAX_MESSAGE_LENGTH], details or {}, dropped)


READERS: Final[dict[ExtensionType, Reader]] = {
    "pre": read_pre,
    "validator": read_verdict,
    "provider": read_provider,
    "post": read_post,
}


def malformed(what: str) -> WireError:
    """The error of a reply that breaks the wire contract."""
    return WireError(ErrorCode.INTERNAL, f"the extension's reply is malformed: {what}")


def _object(data: bytes) -> dict[str, Any] | WireError:
    """The reply as an object; its own error, or what is wrong with it, as an error."""
    if len(data) > MAX_REPLY_BYTES:
        return malformed(f"larger than {MAX_REPLY_BYTES} bytes")
    try:
        reply = orjson.loads(data)
    except orjson.JSONDecodeError:
        return malformed("not JSON")
    # The number of brackets is a fast upper bound of the depth: only a suspicious reply is walked.
    if not brackets_within(data, MAX_JSON_DEPTH) and depth(reply) > MAX_JSON_DEPTH:
        return malformed(f"nested deeper than {MAX_JSON_DEPTH} levels")
    if not isinstance(reply, dict):
        return malformed("not an object")
    if says_twice(data, REPLY_FIELDS):
        return malformed("a key is said twice")
    raw = reply.get("error")
    if raw is None:
        return reply
    error = WireError.from_wire(raw)
    if error.retry_after_ms is not None and error.retry_after_ms > MAX_RETRY_AFTER_MS:
        return error.at(retry_after_ms=MAX_RETRY_AFTER_MS)
    return error


def _patch(data: bytes, allowed: Mapping[str, type]) -> Patch | WireError:
    reply = _object(data)
    if isinstance(reply, WireError):
        return reply
    fields: dict[str, Any] = {}
    for name, value in reply.items():
        kind = allowed.get(name)
        if kind is None or value is None:
            continue
        if not isinstance(value, kind):
            return malformed(f"{name} must be {_WORDS[kind]}")
        fields[name] = value
    messages = fields.get("messages")
    if messages is not None:
        if not messages or not all(map(_is_message, messages)):
            return malformed("messages must be a list of at least one object, each with a role")
        if "prompt" in fields:
            return malformed("prompt and messages exclude each other")
    return Patch(fields, _dropped(reply))


def _is_message(value: object) -> bool:
    """What a caller's message must be, too: behind a pre step nobody looks again."""
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _dropped(reply: Mapping[str, Any]) -> tuple[str, ...]:
    if PROTECTED_FIELDS.isdisjoint(reply):
        return _NONE
    return tuple(sorted(PROTECTED_FIELDS.intersection(reply)))


def _usage(usage: object) -> dict[str, int] | None:
    if usage is None:
        return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens", 0)
    completion = usage.get("completion_tokens", 0)
    if not _count(prompt) or not _count(completion):
        return None
    total = usage.get("total_tokens", prompt + completion)
    if not _count(total):
        return None
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


_PRE_FIELDS: Final[dict[str, type]] = {
    "prompt": str,
    "messages": list,
    "parameters": dict,
    "context": dict,
    "output": str,
}
_POST_FIELDS: Final[dict[str, type]] = {
    "output": str,
    "context": dict,
    "metadata": dict,
    "max_match_length": int,
    "hold": bool,
}
_WORDS: Final[dict[type, str]] = {
    str: "text",
    list: "a list",
    dict: "an object",
    int: "a whole number",
    bool: "true or false",
}
