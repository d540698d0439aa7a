"""Traffic as pages draw it: samples of the last half hour, and sums of the last five minutes. Pure.

The shape is that of ``GET /api/v1/traffic``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval. Latencies are milliseconds, None where nothing was measured."""

    at: str
    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Count:
    """Calls to an extension, requests of a policy, or runs of a step, within the last five minutes."""

    requests: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Count:
        """Reads one."""
        return cls(
            int(document.get("requests") or 0),
            int(document.get("errors") or 0),
            document.get("p50_ms"),
            document.get("p99_ms"),
        )


@dataclass(frozen=True, slots=True)
class PolicyCount:
    """Requests of a policy, and runs of its steps by name."""

    all: Count = Count()
    steps: Mapping[str, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Traffic:
    """``known`` is false where nobody measures."""

    known: bool = False
    interval_seconds: float = 5.0
    samples: Sequence[Sample] = ()
    extensions: Mapping[str, Count] = field(default_factory=dict)
    policies: Mapping[str, PolicyCount] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Traffic:
        """Reads the document."""
        return cls(
            True,
            float(document.get("interval_seconds") or 5.0),
            tuple(
                Sample(
                    str(one.get("at", "")),
                    int(one.get("requests") or 0),
                    int(one.get("errors") or 0),
                    one.get("p50_ms"),
                    one.get("p99_ms"),
                )
                for one in document.get("samples") or ()
            ),
            {key: Count.of(one) for key, one in (document.get("extensions") or {}).items()},
            {
                key: PolicyCount(
                    Count.of(one),
                    {str(name): Count.of(step) for name, step in (one.get("steps") or {}).items()},
                )
                for key, one in (document.get("policies") or {}).items()
            },
        )

    def without_sums(self) -> Traffic:
        """Without what is measured over all tenants together."""
        return replace(self, samples=())


NO_TRAFFIC: Final = Traffic()
