"""Configuration of the mock provider. Every request carries it: a change holds from the next request on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from beamline_contract.errors import ErrorCode
from beamline_sdk import Config

Ms = Annotated[float, Field(ge=0, le=600_000, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1)]
RetryAfterMs = Annotated[int, Field(ge=0, le=300_000)]
Answer = Annotated[str, Field(max_length=1_000_000)]


class ScriptedAnswer(Config):
    """One entry of a script: an answer or an error, after a wait."""

    output: Answer | None = None
    """What is answered; the echo where absent."""
    error: ErrorCode | None = None
    """Fails with this code instead."""
    message: str = "scripted error"
    retryable: bool | None = None
    """Whether the caller may try again; follows from the code where absent."""
    retry_after_ms: RetryAfterMs | None = None
    latency_ms: Ms | None = None
    """Milliseconds before this answer; the configuration's latency where absent."""
    finish_reason: str = "stop"


class MockConfig(Config):
    """Settings of the mock provider."""

    mode: Literal["echo", "fixed", "template", "scripted"] = "echo"
    """How the answer is made: the prompt's beginning, `answer`, `template`, or the next of `script`."""
    full_echo: bool = False
    """Echo the whole prompt, without words around it."""
    answer: Answer = "Mock answer"
    """The answer in mode `fixed`."""
    template: Answer = "{prompt}"
    """The answer in mode `template`: {prompt}, {model}, {tenant_id}, {request_id} and {provider_id} are
    filled in.
    """
    script: Annotated[tuple[ScriptedAnswer, ...], Field(max_length=1000)] = ()
    """The answers in mode `scripted`, one per request, in order; each process counts for itself."""
    script_end: Literal["repeat", "last"] = "repeat"
    """After the script's end: begin again, or stay at its last entry."""
    latency_ms: Ms = 0
    """Milliseconds before each answer; the request parameter `latency_ms` wins."""
    error_rate: Ratio = 0
    """Share of requests that fail."""
    error_code: ErrorCode = ErrorCode.UNAVAILABLE
    """The code of such a failure."""
    error_message: str = "mock failure"
    retryable: bool | None = None
    """Whether the caller may try again after it; follows from the code where absent."""
    retry_after_ms: RetryAfterMs | None = None
    """Milliseconds that a failure asks the caller to wait."""
    stall_rate: Ratio = 0
    """Share of requests that are answered only after `stall_ms`."""
    stall_ms: Ms = 60_000
    """How long a stalled request takes, milliseconds."""
    chunk_characters: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Characters in each chunk of a streamed answer."""
    chunk_delay_ms: Ms = 0
    """Milliseconds before each chunk but the first."""
    stream_fault: Literal["none", "stall", "error"] = "none"
    """What happens to a stream after `stream_fault_after` chunks: nothing, silence, or `error_code`."""
    stream_fault_after: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """Chunks that are sent before the fault."""
    seed: int | None = None
    """Makes the draws of `error_rate` and `stall_rate` repeatable within one process."""
    model: str = "mock-1.0"
    """The model name in the reply's metadata."""

    @model_validator(mode="after")
    def _script_is_there(self) -> MockConfig:
        if self.mode == "scripted" and not self.script:
            raise ValueError("mode scripted needs at least one entry in script")
        return self
