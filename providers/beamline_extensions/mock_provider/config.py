"""Configuration of the mock provider. Every request carries it: a change holds from the next request on."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, model_validator

from beamline_contract.errors import ErrorCode
from beamline_sdk import Config

from .latency import Latency, Ms

Ratio = Annotated[float, Field(ge=0, le=1)]
RetryAfterMs = Annotated[int, Field(ge=0, le=300_000)]
Answer = Annotated[str, Field(max_length=1_000_000)]


ToolName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]


class ToolCall(Config):
    """A call of a tool that the mock asks the caller to make."""

    name: ToolName
    """Name of the function."""
    arguments: Annotated[str, Field(max_length=100_000)] = "{}"
    """Its arguments, as JSON in a string."""


class Usage(Config):
    """Tokens to report instead of counted ones."""

    prompt_tokens: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Tokens of the prompt."""
    completion_tokens: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Tokens of the answer."""


class Fault(Config):
    """One way to fail, and how often."""

    rate: Ratio
    """Share of requests that fail this way."""
    code: ErrorCode
    """Any code of the closed list."""
    message: Annotated[str, Field(max_length=1_000)] = "mock failure"
    """What the error says."""
    retryable: bool | None = None
    """Whether the caller may try again; follows from the code where absent."""
    retry_after_ms: RetryAfterMs | None = None
    """Milliseconds that the caller is asked to wait."""


class ScriptedAnswer(Config):
    """One entry of a script: an answer or an error, after a wait."""

    output: Answer | None = None
    """What is answered; the echo where absent."""
    error: ErrorCode | None = None
    """Fails with this code instead."""
    message: Annotated[str, Field(max_length=1_000)] = "scripted error"
    """What the error says."""
    retryable: bool | None = None
    """Whether the caller may try again; follows from the code where absent."""
    retry_after_ms: RetryAfterMs | None = None
    """Milliseconds that the caller is asked to wait."""
    latency_ms: Ms | None = None
    """Milliseconds before this answer; the configuration's latency where absent."""
    finish_reason: Annotated[str, Field(max_length=64)] = "stop"
    """Why the answer ended: stop, length, tool_calls, content_filter."""
    tool_calls: Annotated[tuple[ToolCall, ...], Field(max_length=16)] = ()
    """Calls of tools that come with this answer."""


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
    latency: Latency | None = None
    """A distribution instead: `{distribution: normal, mean_ms: 800, stddev_ms: 200}`; also fixed, uniform,
    exponential, percentiles.
    """
    error_rate: Ratio = 0
    """Share of requests that fail."""
    error_code: ErrorCode = ErrorCode.UNAVAILABLE
    """The code of such a failure."""
    error_message: Annotated[str, Field(max_length=1_000)] = "mock failure"
    """What such a failure says."""
    retryable: bool | None = None
    """Whether the caller may try again after it; follows from the code where absent."""
    retry_after_ms: RetryAfterMs | None = None
    """Milliseconds that a failure asks the caller to wait."""
    errors: Annotated[tuple[Fault, ...], Field(max_length=16)] = ()
    """Several ways to fail beside each other, each with a rate of its own; the rates add up to 1 at most."""
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
    tool_calls: Annotated[tuple[ToolCall, ...], Field(max_length=16)] = ()
    """Calls of tools that come with every answer; a script's entries have their own."""
    usage: Usage | None = None
    """Tokens to report; counted (UTF-8 bytes divided by 4) where absent."""
    seed: int | None = None
    """Makes every draw (latency, errors, stalls) repeatable within one process."""
    model: Annotated[str, Field(max_length=256)] = "mock-1.0"
    """The model name in the reply's metadata."""

    @model_validator(mode="after")
    def _script_is_there(self) -> MockConfig:
        if self.mode == "scripted" and not self.script:
            raise ValueError("mode scripted needs at least one entry in script")
        return self

    @model_validator(mode="after")
    def _rates_fit(self) -> MockConfig:
        if self.error_rate + sum(fault.rate for fault in self.errors) > 1 + 1e-9:
            raise ValueError("error_rate and the rates of errors must not add up to more than 1")
        return self

    @cached_property
    def faults(self) -> tuple[Fault, ...]:
        """All ways to fail, the one of `error_rate` first."""
        if not self.error_rate:
            return self.errors
        first = Fault(
            rate=self.error_rate,
            code=self.error_code,
            message=self.error_message,
            retryable=self.retryable,
            retry_after_ms=self.retry_after_ms,
        )
        return (first, *self.errors)
