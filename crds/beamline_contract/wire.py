"""Messages between a router and an extension, and the limits on them.

Requests are built and read on the hot path, so they are plain dictionaries; :class:`TypedDict` gives them
names. Nothing here validates: the front doors validate once, and replies are read by the router's ``replies``
module.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NotRequired, TypedDict

MAX_BODY_BYTES: Final = 256 * 1024
MAX_REPLY_BYTES: Final = 1024 * 1024
MAX_JSON_DEPTH: Final = 32
MAX_STEPS: Final = 16
MAX_PROVIDER_ATTEMPTS: Final = 6
MAX_RETRY_AFTER_MS: Final = 300_000
DEADLINE_MARGIN_MS: Final = 10
"""An attempt ends this long before the request's deadline, so that the answer can still be sent."""


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Parameters(TypedDict, total=False):
    model: str
    max_tokens: int
    temperature: float


class ExtensionRequest(TypedDict):
    """What a router sends to an extension of any type."""

    trace_id: str
    request_id: str
    tenant_id: str
    extension_id: str
    provider_id: NotRequired[str]
    prompt: NotRequired[str]
    messages: NotRequired[list[dict[str, Any]]]
    output: NotRequired[str]
    """The provider's answer: sent to post steps only."""
    part: NotRequired[Literal["window", "message"]]
    """To post steps, where ``output`` is a piece of a stream, or holds the texts beside the answer's (tool
    calls), one a line.
    """
    usage: NotRequired[Usage]
    parameters: dict[str, Any]
    config: dict[str, Any]
    context: dict[str, Any]


class ReplyMetadata(TypedDict, total=False):
    model: str
    finish_reason: str
    latency_ms: float
    trace_id: str


class ProviderReply(TypedDict):
    """What a provider answers."""

    provider_id: str
    output: str
    usage: Usage
    metadata: dict[str, Any]


class Patch(TypedDict, total=False):
    """What a pre or post step answers: the fields it changes, others stay.

    A pre step may change ``prompt``, ``messages``, ``parameters`` and ``context``, or end the request by
    giving ``output`` (short-circuit). A post step may change ``output``, ``context`` and ``metadata``, and
    says how far it looks: ``max_match_length``, in characters.
    """

    prompt: str
    messages: list[dict[str, Any]]
    parameters: dict[str, Any]
    output: str
    context: dict[str, Any]
    metadata: dict[str, Any]
    max_match_length: int


class Verdict(TypedDict):
    """What a validator answers."""

    verdict: Literal["pass", "reject"]
    reason: NotRequired[str]
    details: NotRequired[dict[str, Any]]


PROTECTED_FIELDS: Final = frozenset(
    {"tenant_id", "request_id", "trace_id", "extension_id", "provider_id", "deadline_ms", "route"}
)
"""What an extension can't change: found in a pre, validator or post reply it is dropped and counted."""
