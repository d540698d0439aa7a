"""Row "openai_provider": see :mod:`bench.provider_process`."""

from __future__ import annotations

from typing import Any

from bench.parts import Row
from bench.provider_process import measure


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    config = {"model": "gpt-4", "max_tokens": 100}
    return measure("openai", config, 1_500, rounds=rounds, seconds=seconds)
