"""One request on its way: what its steps have made of it so far, and the message that each extension gets."""

from __future__ import annotations

from typing import Any, Final

import orjson

from beamline_contract.errors import WireError
from beamline_contract.wire import AnswerPart

from .headers import opening
from .replies import Patch, ProviderReply
from .request import Answer, Failure, Request, StepTrace, Trace
from .route import Call, Route

_NUMBERS: Final = frozenset({int, float})

_TOLD_THE_ROUTE: Final = frozenset({"pre", "post"})


class Run:
    """Working state of one request; nothing of it is shared with another."""

    __slots__ = (
        "broken_off_at", "committed", "context", "deadline", "messages", "metadata", "opening", "output",
        "parameters", "part", "prompt", "provider_attempts", "provider_id", "provider_s", "request", "route",
        "trace", "trail", "usage",
    )  # fmt: skip

    def __init__(self, request: Request, route: Route, deadline: float, trace: Trace) -> None:
        self.request = request
        self.route = route
        self.deadline = deadline
        self.trace = trace
        self.opening = opening(request.request_id, trace)
        self.prompt = request.prompt
        self.messages = request.messages
        self.parameters = request.parameters
        self.context = request.context
        self.output: str | None = None
        self.part: AnswerPart | None = None  # what of the answer a post step is shown; None: all its text
        self.committed = False  # the caller was given part of the answer: nobody else may be asked
        self.usage: dict[str, int] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        self.metadata: dict[str, Any] = {}
        self.provider_id = ""
        self.provider_s = 0.0
        self.provider_attempts = 0
        self.broken_off_at = 0  # attempts of the call that a cancellation or fault has just ended
        self.trail: list[StepTrace] = []

    @property
    def as_asked(self) -> bool:
        """Whether what is sent to extensions is still what the caller said, and nothing that steps added."""
        asked = self.request
        return (
            self.output is None
            and self.prompt is asked.prompt
            and self.messages is asked.messages
            and self.parameters is asked.parameters
            and self.context is asked.context
        )

    def payload(self, call: Call) -> bytes:
        """The message for one extension, as in ``wire.ExtensionRequest``; the config is inserted as it is."""
        request = self.request
        body: dict[str, Any] = {
            "trace_id": self.trace.trace_id,
            "request_id": request.request_id,
            "tenant_id": request.tenant_id,
            "extension_id": call.extension_id,
        }
        if call.type == "provider":
            body["provider_id"] = call.extension_id
        if call.type in _TOLD_THE_ROUTE:
            body["policy"] = self.route.policy_id
            if request.model is not None:
                body["model"] = request.model
        if self.messages is not None:
            body["messages"] = self.messages
        else:
            body["prompt"] = self.prompt
        if call.type == "post":
            body["output"] = self.output
            body["usage"] = self.usage
            body["metadata"] = self.metadata
            if self.part is not None:
                body["part"] = self.part
        body["parameters"] = self.parameters
        body["config"] = call.config_json
        body["context"] = self.context
        return orjson.dumps(body)

    def apply_pre(self, patch: Patch, extension_id: str) -> None:
        """Takes over a pre step's changes. Objects are merged key by key at the top level, other fields
        replaced.
        """
        fields = patch.fields
        if "prompt" in fields:
            self.prompt, self.messages = fields["prompt"], None
        elif "messages" in fields:
            self.prompt, self.messages = None, fields["messages"]
        if "parameters" in fields:
            self.parameters = {**self.parameters, **fields["parameters"]}
        if "context" in fields:
            self.context = {**self.context, **fields["context"]}
        if "output" in fields:
            self.output = fields["output"]
            self.provider_id = extension_id

    def apply_provider(self, reply: ProviderReply, provider_id: str, seconds: float) -> None:
        """Takes over the provider's answer."""
        self.output = reply.output
        # An answer that a post step sent back was paid for as well.
        self.usage = {name: count + self.usage[name] for name, count in reply.usage.items()}
        self.metadata = reply.metadata
        self.provider_id = provider_id
        self.provider_s = seconds

    def apply_post(self, patch: Patch) -> None:
        """Takes over a post step's changes."""
        fields = patch.fields
        if "output" in fields:
            self.output = fields["output"]
        if "context" in fields:
            self.context = {**self.context, **fields["context"]}
        if "metadata" in fields:
            self.metadata = {**self.metadata, **fields["metadata"]}

    def answer(self) -> Answer:
        """The answer; of the metadata the four known fields always have their types."""
        metadata = dict(self.metadata)
        model, reason, latency = (
            metadata.get("model"),
            metadata.get("finish_reason"),
            metadata.get("latency_ms"),
        )
        metadata["model"] = model if isinstance(model, str) else self.request.model or ""
        metadata["finish_reason"] = reason if isinstance(reason, str) else "stop"
        if latency is None or type(latency) not in _NUMBERS or latency < 0:
            metadata["latency_ms"] = round(self.provider_s * 1000, 3)
        metadata["trace_id"] = self.trace.trace_id
        return Answer(
            self.provider_id, self.output or "", self.usage, metadata, self.trail, self.route.policy_id
        )

    def failure(self, error: WireError) -> Failure:
        """The error of this request, which says whose it is."""
        return Failure(error.at(request_id=self.request.request_id), self.trail, self.route.policy_id)
