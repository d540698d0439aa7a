"""What is remembered: answers by key, each for its time, within a number of entries and of bytes. Pure; time
arrives as an argument.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from beamline_sdk import ExtensionRequest

from .config import CacheConfig

ENTRY_BYTES: Final = 200
"""Bytes that an entry costs beside its text (key, counters, table), rounded up from a measurement."""
UNCACHEABLE: Final = ("tools", "functions", "tool_choice", "function_call")
"""Parameters that let a model ask for actions: their answers belong to their moment."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer. ``until`` is on the clock of the caller, ``size`` in bytes."""

    output: str
    model: str
    until: float
    size: int


class Entries:
    """The answers of one process, the one used least recently first to go."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Entry] = OrderedDict()
        self.size = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes, now: float) -> Entry | None:
        """The answer stored under ``key``, unless its time is over."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return entry

    def put(self, key: bytes, output: str, model: str, now: float, config: CacheConfig) -> bool:
        """Stores an answer; False where it is too long. One that is there and still good stays as it is:
        its time does not begin anew.
        """
        if self.get(key, now) is not None:
            return True
        size = len(output.encode()) + len(model) + ENTRY_BYTES
        if size - ENTRY_BYTES > config.max_answer_bytes or size > config.max_bytes:
            return False
        self._kept[key] = Entry(output, model, now + config.ttl_s, size)
        self.size += size
        while len(self._kept) > config.max_entries or self.size > config.max_bytes:
            self._drop(next(iter(self._kept)))
            self.evicted += 1
        return True

    def _drop(self, key: bytes) -> None:
        self.size -= self._kept.pop(key).size


def key_of(request: ExtensionRequest, config: CacheConfig) -> bytes | None:
    """The key of what a request asks, or None where its answer must not be shared.

    Everything that can change the answer is in it: tenant, policy, model, prompt or messages, parameters,
    and, unless the configuration says otherwise, context.
    """
    if not request.tenant_id or any(request.parameters.get(name) for name in UNCACHEABLE):
        return None
    context: Mapping[str, Any] = request.context if config.vary_on_context else {}
    asked = {
        "scope": config.scope,
        "tenant": request.tenant_id,
        "policy": request.policy,
        "model": request.model,
        "prompt": request.prompt,
        "messages": request.messages,
        "parameters": request.parameters,
        "context": {name: value for name, value in context.items() if name != MARK},
    }
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).digest()


MARK: Final = "response_cache"
"""Field of the context by which the step that looks up tells the step that stores what it did; a caller that
sets it to ``bypass`` is neither answered from the cache nor remembered."""
