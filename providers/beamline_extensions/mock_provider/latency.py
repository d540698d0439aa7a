"""How long the mock takes: a distribution of milliseconds, drawn with the configuration's own generator."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from beamline_sdk import Config

LONGEST_MS = 600_000
Ms = Annotated[float, Field(ge=0, le=LONGEST_MS, allow_inf_nan=False)]


class Fixed(Config):
    """Always the same."""

    distribution: Literal["fixed"]
    ms: Ms
    """Milliseconds."""

    def draw(self, rng: random.Random) -> float:
        """Milliseconds for one answer."""
        del rng
        return self.ms


class Uniform(Config):
    """Anything between two bounds, all alike."""

    distribution: Literal["uniform"]
    min_ms: Ms = 0
    """The least, milliseconds."""
    max_ms: Ms
    """The most, milliseconds."""

    @model_validator(mode="after")
    def _in_order(self) -> Uniform:
        if self.max_ms < self.min_ms:
            raise ValueError("max_ms must be at least min_ms")
        return self

    def draw(self, rng: random.Random) -> float:
        """Milliseconds for one answer."""
        return rng.uniform(self.min_ms, self.max_ms)


class Normal(Config):
    """Around a mean; what would be negative is 0."""

    distribution: Literal["normal"]
    mean_ms: Ms
    """The mean, milliseconds."""
    stddev_ms: Ms
    """The standard deviation, milliseconds."""

    def draw(self, rng: random.Random) -> float:
        """Milliseconds for one answer."""
        return min(max(rng.gauss(self.mean_ms, self.stddev_ms), 0.0), LONGEST_MS)


class Exponential(Config):
    """Mostly short, now and then long: waiting in a queue."""

    distribution: Literal["exponential"]
    mean_ms: Annotated[float, Field(gt=0, le=LONGEST_MS, allow_inf_nan=False)]
    """The mean, milliseconds."""
    max_ms: Ms = LONGEST_MS
    """Longer ones are cut to this, milliseconds."""

    def draw(self, rng: random.Random) -> float:
        """Milliseconds for one answer."""
        return min(rng.expovariate(1 / self.mean_ms), self.max_ms)


class Percentile(Config):
    """One point of a measured distribution."""

    percentile: Annotated[float, Field(ge=0, le=100)]
    """Share of answers, in percent, that take at most `ms`."""
    ms: Ms
    """Milliseconds."""


class Percentiles(Config):
    """As measured elsewhere: a straight line from each point to the next."""

    distribution: Literal["percentiles"]
    points: Annotated[tuple[Percentile, ...], Field(min_length=1, max_length=100)]
    """Points in rising order. Below the first everything takes as long as the first, above the last as long
    as the last.
    """

    @model_validator(mode="after")
    def _rising(self) -> Percentiles:
        for one, other in pairwise(self.points):
            if other.percentile <= one.percentile or other.ms < one.ms:
                raise ValueError("points must rise: percentile strictly, ms never falling")
        return self

    def draw(self, rng: random.Random) -> float:
        """Milliseconds for one answer."""
        at = rng.random() * 100
        if at <= self.points[0].percentile:
            return self.points[0].ms
        for low, high in pairwise(self.points):
            if at <= high.percentile:
                share = (at - low.percentile) / (high.percentile - low.percentile)
                return low.ms + share * (high.ms - low.ms)
        return self.points[-1].ms


Latency = Annotated[Fixed | Uniform | Normal | Exponential | Percentiles, Field(discriminator="distribution")]
