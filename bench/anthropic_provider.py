"""Row "anthropic_provider": see :mod:`bench.provider_process`."""

from __future__ import annotations

from typing import Any

from bench.parts import Row
from bench.provider_process import measure


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    config = {"model": "claude-3-opus-20240229", "max_tokens": 100}
    return measure("anthropic", config, 1_500, rounds=rounds, seconds=seconds)
