"""What an extension answers: one type per kind, and one error.

A result is a value; :class:`ExtensionError` is raised, because a fault deep inside an author's code should
not have to be carried out by hand. How each looks on the wire is written here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beamline_contract.errors import RETRYABLE_BY_DEFAULT, ErrorCode, WireError


@dataclass(slots=True)
class Patch:
    """What a pre or post step changes; None leaves a field as it is, so ``Patch()`` changes nothing.

    A pre step may change ``prompt``, ``messages``, ``parameters`` and ``context``, or end the request by
    giving ``output``. A post step may change ``output``, ``context`` and ``metadata``; shown a
    window of a streamed answer (``request.part``), it may ``hold`` the answer back until its end.
    """

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    parameters: dict[str, Any] | None = None
    output: str | None = None
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    hold: bool = False

    def to_wire(self) -> dict[str, Any]:
        """The fields that are set."""
        wire: dict[str, Any] = {}
        for name in ("prompt", "messages", "parameters", "output", "context", "metadata"):
            value = getattr(self, name)
            if value is not None:
                wire[name] = value
        if self.hold:
            wire["hold"] = True
        return wire


@dataclass(slots=True)
class Verdict:
    """What a validator answers. ``reason`` and ``details`` reach the caller: no value from the prompt in
    them.
    """

    passed: bool
    reason: str | None = None
    details: Mapping[str, Any] | None = None

    @classmethod
    def ok(cls, details: Mapping[str, Any] | None = None) -> Verdict:
        """The request may go on; ``details`` are notes about it."""
        return cls(passed=True, details=details)

    @classmethod
    def reject(cls, reason: str, details: Mapping[str, Any] | None = None) -> Verdict:
        """The request ends here, with ``reason`` for the caller."""
        return cls(passed=False, reason=reason, details=details)

    def to_wire(self) -> dict[str, Any]:
        """``{"verdict": "pass" | "reject", ...}``."""
        wire: dict[str, Any] = {"verdict": "pass" if self.passed else "reject"}
        if self.reason is not None:
            wire["reason"] = self.reason
        if self.details:
            wire["details"] = dict(self.details)
        return wire


@dataclass(slots=True)
class ProviderReply:
    """What a provider answers. The runtime adds provider_id, latency_ms and trace_id.

    ``total_tokens`` on the wire is the sum of the two. ``finish_reason`` is one of ``stop`` ``length``
    ``tool_calls`` ``content_filter``.
    """

    output: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""
    finish_reason: str = "stop"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_wire(self, provider_id: str, trace_id: str, latency_ms: float) -> dict[str, Any]:
        """The reply of the contract. ``latency_ms`` is the time the handler took."""
        metadata: dict[str, Any] = {
            "model": self.model,
            "finish_reason": self.finish_reason,
            "latency_ms": round(latency_ms, 3),
            "trace_id": trace_id,
        }
        if self.metadata:
            metadata.update(self.metadata)
        return {
            "provider_id": provider_id,
            "output": self.output,
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens,
            },
            "metadata": metadata,
        }


@dataclass(slots=True)
class Delta:
    """A part of a streamed answer: more text, or more of the message's other parts.

    ``message`` holds what an OpenAI delta holds beside ``content``, such as ``tool_calls`` with their
    ``index``.
    """

    text: str = ""
    message: Mapping[str, Any] | None = None

    def to_wire(self) -> dict[str, Any]:
        """The body of one chunk."""
        wire: dict[str, Any] = {}
        if self.text:
            wire["delta"] = self.text
        if self.message:
            wire["message"] = dict(self.message)
        return wire


Result = Patch | Verdict | ProviderReply | None
StreamPart = str | Delta | ProviderReply
"""What a streaming provider yields; a ProviderReply is the last."""


class ExtensionError(Exception):
    """A failure that the caller shall see as it is. ``message`` reaches the caller: no payload, no key in it.

    ``retryable`` says whether the same request may be tried again; None follows from the code.
    ``retry_after_ms`` is how long to wait first, milliseconds.
    """

    def __init__(
        self,
        code: ErrorCode | str,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after_ms: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = ErrorCode(code)
        self.message = message
        self.retryable = self.code in RETRYABLE_BY_DEFAULT if retryable is None else retryable
        self.retry_after_ms = retry_after_ms
        self.details = dict(details or {})

    def to_wire_error(self) -> WireError:
        """The same as the object that travels under ``error``."""
        return WireError(
            code=self.code,
            message=self.message,
            retryable=self.retryable,
            retry_after_ms=self.retry_after_ms,
            details=self.details,
        )


class NotReadyError(Exception):
    """Raised by ``initialize``: the extension can't serve yet. ``reason`` is one word, ``message`` a
    sentence.

    The process stays up, says so on ``/readyz`` and in one log line, and tries again: a missing key is no
    reason to crash in a loop. The reason for it is ``CredentialsMissing``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
