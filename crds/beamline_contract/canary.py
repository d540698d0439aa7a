"""A canary: how a version of an Extension takes over its traffic, step by step, and what it has to prove.

A version is an Extension that names its base (``versionOf``). With ``canary`` the operator sets its weight,
and those of the base and of the other versions, instead of ``spec.weight``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from .model import Model, Rule


class CanaryStep(Model):
    """One share of the traffic, and how long it is watched."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """Percent of the requests to the base that this version takes."""
    pause_seconds: Annotated[int, Field(ge=0, le=604_800)] = 60
    """The least time before the next step; the gates must hold too."""


class CanaryGates(Model):
    """What must be so in each step, as routers report it. The first breach rolls back."""

    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Failed calls divided by all calls of the step."""
    max_latency_ms: Annotated[int, Field(ge=1, le=600_000)] | None = None
    """Mean latency of the calls of the step, milliseconds. Default: not looked at."""
    min_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Calls of a step below which nothing is judged, and no step ends."""


class VersionCanary(Model):
    """Steps with growing weights; after the last one the version takes everything."""

    steps: Annotated[tuple[CanaryStep, ...], Field(strict=False, min_length=1, max_length=16)] = (
        CanaryStep(weight=5),
        CanaryStep(weight=25),
        CanaryStep(weight=50),
    )
    """In order."""
    gates: CanaryGates = CanaryGates()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.steps.all(s, self.steps.filter(t, t.weight == s.weight).size() == 1) && "
            "self.steps.map(s, s.weight).isSorted()",
            message="the weights of the steps must grow",
            field="steps",
            holds=lambda self, _: all(
                one.weight < after.weight for one, after in zip(self.steps, self.steps[1:], strict=False)
            ),
        ),
    )
