"""Row "mock_provider": see :mod:`bench.provider_process`."""

from __future__ import annotations

from typing import Any

from bench.parts import Row
from bench.provider_process import measure


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; returns the lines of the table and the raw figures."""
    return measure("mock_provider", {"mode": "echo"}, 5_000, rounds=rounds, seconds=seconds)
