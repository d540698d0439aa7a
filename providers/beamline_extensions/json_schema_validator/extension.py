"""A post step that lets only answers pass that satisfy a JSON Schema, and sends others back.

It answers VALIDATION_REJECTED. With ``retry`` that is retryable, and the router asks the provider once more;
without, or the second time, it is the request's error, with the fields that are wrong. A streamed answer is
held back to its end, because a part of a JSON text can't be judged.
"""

from __future__ import annotations

import asyncio
from typing import Final

from beamline_contract.errors import ErrorCode
from beamline_sdk import ExtensionError, ExtensionRequest, Patch, Post

from .checking import unwrapped
from .config import JsonSchemaConfig

LONG_TEXT: Final = 16_384
"""Characters from which checking takes longer than an event loop should wait."""


class JsonSchemaValidator(Post[JsonSchemaConfig]):
    """Checks the output against ``schema``."""

    name = "json_schema_validator"
    version = "1.0.0"
    description = "Lets only answers pass that satisfy a JSON Schema; asks for others once more."
    config_model = JsonSchemaConfig

    async def handle(self, request: ExtensionRequest, config: JsonSchemaConfig) -> Patch:
        if request.part == "window":
            return Patch(hold=True)
        if request.part == "message":
            return Patch()  # not the answer
        output = request.output or ""
        if not output and request.metadata.get("message"):
            return Patch()  # a call of tools: the answer is yet to come
        text = unwrapped(output) if config.unwrap else output
        if len(text) > LONG_TEXT:
            faults = await asyncio.to_thread(config.checker.faults, text, config.max_errors)
        else:
            faults = config.checker.faults(text, config.max_errors)
        if faults:
            first = faults[0]
            words = "is no JSON" if first.rule == "json" else f"breaks {first.rule} at {first.path}"
            raise ExtensionError(
                ErrorCode.VALIDATION_REJECTED,
                f"the answer {words}",
                retryable=config.retry,
                details={"path": first.path, "faults": [fault.to_wire() for fault in faults]},
            )
        return Patch() if text == output else Patch(output=text)
