"""A request inside the router, and the answer that leaves it.

Front doors validate what came in once and build a :class:`Request`; the pipeline returns an :class:`Answer`
or a :class:`Failure`. Both carry the trail: one entry per step that ran or was skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from beamline_contract.errors import WireError

if TYPE_CHECKING:
    from .spans import Spans


@dataclass(slots=True)
class Trace:
    """The trace that a request belongs to. ``flags`` are the caller's, ``01`` (sampled) for a new trace."""

    trace_id: str
    flags: str
    tracestate: str | None
    baggage: str | None


@dataclass(slots=True)
class Request:
    """One validated request. ``deadline`` is monotonic seconds; ``headers`` are lower-case names of the
    caller's.

    Exactly one of ``prompt`` and ``messages`` is set. ``policy`` names a policy by id and skips matching.
    """

    request_id: str
    tenant_id: str
    deadline: float | None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    environment: str | None = None
    model: str | None = None
    policy: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    trace_id: str = ""
    traceparent: str | None = None
    tracestate: str | None = None
    baggage: str | None = None
    trace: Trace | None = None
    """The trace of the three above, where the front door has already read them."""
    want_trail: bool = True
    stream: bool = False
    stream_usage: bool = False
    """The caller of a stream wants the usage at its end."""
    spans: Spans | None = None
    """Where the request's trace is written; None where nobody asked for traces."""


@dataclass(slots=True)
class StepTrace:
    """One entry of the trail. ``outcome``: ok | rejected | skipped | error | shadow; ``ms`` includes all
    attempts.

    ``version`` is stated where an extension was one of several versions. ``why`` says of a provider how it
    came to be asked (the strategy, ``canary``, ``fallback``, ``last trial``), and of a validator that it
    ran beside the provider (``overlap``). ``notes`` are what a validator remarked when it let a request pass.
    """

    step: str
    action: str
    extension_id: str
    outcome: str
    ms: float
    attempts: int = 1
    reason: str | None = None
    breaker: str | None = None
    version: str | None = None
    why: str | None = None
    notes: Mapping[str, Any] | None = None
    began: float = 0.0
    """Monotonic seconds; stays in this router."""

    def to_wire(self) -> dict[str, Any]:
        """The JSON form in ``steps`` of a reply."""
        wire: dict[str, Any] = {
            "step": self.step,
            "action": self.action,
            "extension_id": self.extension_id,
            "outcome": self.outcome,
            "ms": int(self.ms * 1000.0 + 0.5) / 1000.0,  # as round(), which is four times as dear
            "attempts": self.attempts,
        }
        if self.reason is not None:
            wire["reason"] = self.reason
        if self.breaker is not None:
            wire["breaker"] = self.breaker
        if self.version is not None:
            wire["version"] = self.version
        if self.why is not None:
            wire["why"] = self.why
        if self.notes:
            wire["notes"] = dict(self.notes)
        return wire


@dataclass(slots=True)
class Answer:
    """What the provider said, after post steps."""

    provider_id: str
    output: str
    usage: dict[str, int]
    metadata: dict[str, Any]
    trail: list[StepTrace]
    policy_id: str


@dataclass(slots=True)
class Failure:
    """The one error of a request that has no answer."""

    error: WireError
    trail: list[StepTrace]
    policy_id: str | None = None
