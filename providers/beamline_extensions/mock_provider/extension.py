"""A provider without a model: echoes, answers by a script, and fails on purpose.

Everything is read from the configuration that the request carries, so a change in the custom resource holds
from the next request on. Two things are kept between requests, for each distinct configuration: the position
in a script and the generator of a seed. A new configuration starts them anew.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, Final

from beamline_contract.errors import ErrorCode
from beamline_sdk import ExtensionError, ExtensionRequest, Provider, ProviderReply, Setup
from beamline_sdk.results import Delta, StreamPart

from .answers import answer, as_message, tokens
from .config import Fault, MockConfig, ScriptedAnswer, ToolCall
from .latency import LONGEST_MS

_KEPT: Final = 128
_NOTHING: Final[Mapping[str, Any]] = {}


class _Run:
    """What one configuration has done so far."""

    def __init__(self, config: MockConfig) -> None:
        self.config = config
        self.random = random.Random(config.seed)  # noqa: S311 -- faults on purpose, no secret
        self._position = 0

    def next_entry(self) -> ScriptedAnswer:
        script = self.config.script
        entry = script[min(self._position, len(script) - 1)]
        self._position += 1
        if self._position == len(script) and self.config.script_end == "repeat":
            self._position = 0
        return entry


class MockProvider(Provider[MockConfig]):
    """Answers "Mock response to: ..." and whatever else its configuration asks for."""

    name = "mock_provider"
    version = "1.1.0"
    description = "Echoes the prompt; latency, faults and scripts are set in its configuration."
    config_model = MockConfig

    def __init__(self) -> None:
        self._id = self.name
        self._runs: OrderedDict[int, _Run] = OrderedDict()

    async def initialize(self, setup: Setup) -> None:
        self._id = setup.extension_id

    async def handle(self, request: ExtensionRequest, config: MockConfig) -> ProviderReply:
        run = self._run_of(config)
        entry = run.next_entry() if config.mode == "scripted" else None
        milliseconds = _latency_ms(request, config, entry, run.random)
        if config.stall_rate and run.random.random() < config.stall_rate:
            milliseconds += config.stall_ms
        if milliseconds > 0:
            await asyncio.sleep(milliseconds / 1000)
        if entry is not None and entry.error is not None:
            raise ExtensionError(
                entry.error, entry.message, retryable=entry.retryable, retry_after_ms=entry.retry_after_ms
            )
        faults = config.faults
        if faults:
            _fail_by_chance(faults, run.random.random())
        output = entry.output if entry is not None else None
        if output is None:
            output = answer(request, config, request.provider_id or self._id)
        calls = entry.tool_calls if entry is not None else config.tool_calls
        usage = config.usage
        return ProviderReply(
            output=output,
            prompt_tokens=tokens(*request.texts()) if usage is None else usage.prompt_tokens,
            completion_tokens=tokens(output) if usage is None else usage.completion_tokens,
            model=config.model,
            finish_reason=_finish_reason(entry, calls),
            metadata={"message": {"tool_calls": as_message(calls)}} if calls else _NOTHING,
        )

    async def stream(self, request: ExtensionRequest, config: MockConfig) -> AsyncGenerator[StreamPart, None]:
        reply = await self.handle(request, config)
        size = config.chunk_characters
        for number, start in enumerate(range(0, len(reply.output), size)):
            await _fault(config, number)
            if number:
                await _wait(config.chunk_delay_ms)
            yield reply.output[start : start + size]
        message = reply.metadata.get("message")
        if message is not None:
            calls = [{"index": number, **call} for number, call in enumerate(message["tool_calls"])]
            yield Delta(message={"tool_calls": calls})
        yield replace(reply, output="", metadata=_NOTHING)

    def _run_of(self, config: MockConfig) -> _Run:
        # Equal configurations are one object in the runtime; holding it keeps its id from being reused.
        run = self._runs.get(id(config))
        if run is None:
            run = self._runs[id(config)] = _Run(config)
            if len(self._runs) > _KEPT:
                self._runs.popitem(last=False)
        return run


def _latency_ms(
    request: ExtensionRequest, config: MockConfig, entry: ScriptedAnswer | None, rng: random.Random
) -> float:
    asked: Any = request.parameters.get("latency_ms")
    if asked is not None:
        if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 <= asked <= LONGEST_MS:
            raise ExtensionError(
                ErrorCode.INVALID_ARGUMENT,
                f"parameters.latency_ms must be a number from 0 to {LONGEST_MS}",
            )
        return float(asked)
    if entry is not None and entry.latency_ms is not None:
        return entry.latency_ms
    return config.latency_ms if config.latency is None else config.latency.draw(rng)


def _fail_by_chance(faults: tuple[Fault, ...], drawn: float) -> None:
    for fault in faults:
        drawn -= fault.rate
        if drawn < 0:
            raise ExtensionError(
                fault.code, fault.message, retryable=fault.retryable, retry_after_ms=fault.retry_after_ms
            )


def _finish_reason(entry: ScriptedAnswer | None, calls: tuple[ToolCall, ...]) -> str:
    stated = "stop" if entry is None else entry.finish_reason
    return "tool_calls" if calls and stated == "stop" else stated


async def _fault(config: MockConfig, sent: int) -> None:
    if config.stream_fault == "none" or sent != config.stream_fault_after:
        return
    if config.stream_fault == "stall":
        await _wait(config.stall_ms)
        return
    raise ExtensionError(config.error_code, config.error_message, retryable=config.retryable)


async def _wait(milliseconds: float) -> None:
    if milliseconds > 0:
        await asyncio.sleep(milliseconds / 1000)
