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


AnswerPart = Literal["window", "end", "message"]
"""What a post step is shown, where it is not a whole answer's text: a piece of a streamed answer; the end of
it, which is all of it where nothing has left before; the texts beside the answer (tool calls), one a line.
"""


class ExtensionRequest(TypedDict):
    """What a router sends to an extension of any type."""

    trace_id: str
    request_id: str
    tenant_id: str
    extension_id: str
    provider_id: NotRequired[str]
    policy: NotRequired[str]
    """Id of the policy that took the request: sent to pre and post steps only, as is ``model``."""
    model: NotRequired[str]
    """The model that the request asked the router for, where it did."""
    prompt: NotRequired[str]
    messages: NotRequired[list[dict[str, Any]]]
    output: NotRequired[str]
    """The provider's answer: sent to post steps only."""
    part: NotRequired[AnswerPart]
    """Sent to post steps whose ``output`` is not the text of a whole answer."""
    usage: NotRequired[Usage]
    metadata: NotRequired[ReplyMetadata]
    """What the provider said about its answer: sent to post steps only."""
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
    giving ``output`` (short-circuit). A post step may change ``output``, ``context`` and ``metadata``. Where
    it is shown a window of a streamed answer it says how far it looks: ``max_match_length``, in characters;
    or ``hold``, which keeps the answer back until its end.
    """

    prompt: str
    messages: list[dict[str, Any]]
    parameters: dict[str, Any]
    output: str
    context: dict[str, Any]
    metadata: dict[str, Any]
    max_match_length: int
    hold: bool


class Verdict(TypedDict):
    """What a validator answers."""

    verdict: Literal["pass", "reject"]
    reason: NotRequired[str]
    details: NotRequired[dict[str, Any]]


PROTECTED_FIELDS: Final = frozenset(
    {"tenant_id", "request_id", "trace_id", "extension_id", "provider_id", "deadline_ms", "route"}
)
"""What an extension can't change: found in a pre, validator or post reply it is dropped and counted."""
