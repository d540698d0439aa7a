"""Configuration of response_cache: the same for the step that looks up and the step that stores."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from beamline_sdk import Config


class CacheConfig(Config):
    """Settings of response_cache."""

    ttl_s: Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)] = 300
    """Seconds that an answer is used, from when it was stored."""
    max_entries: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Answers kept; beyond them the one that was used least recently goes."""
    max_bytes: Annotated[int, Field(ge=1_024, le=17_179_869_184)] = 67_108_864
    """Bytes of text kept, all tenants together; keep it well below the workload's memory limit."""
    max_answer_bytes: Annotated[int, Field(ge=1, le=1_048_576)] = 65_536
    """A longer answer is not stored."""
    vary_on_context: bool = True
    """Requests with different `context` are different requests. False where no step and no provider reads
    it."""
    scope: Annotated[str, Field(max_length=128)] = ""
    """Anything: another scope never sees this one's answers. A new one forgets everything at once."""
