"""What the compiler makes of records: everything that can be decided before a request comes has been decided.

A :class:`Call` is one extension as one step calls it: effective timeout, retry, merged config already
serialised. A :class:`Route` is a policy ready to run. All of it is immutable and shared between requests, and
between snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from beamline_contract.names import Action, ExtensionType
from beamline_contract.policy import Strategy
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_contract.reports import Notice
from beamline_sdk.breaker import BreakerSettings

from .retry import BudgetSettings
from .score import ALIKE, NO_HINTS, Hints, Weights

FailureMode = Literal["open", "closed", "fallback"]


@dataclass(frozen=True, slots=True, eq=False)
class CompiledExtension:
    """A valid extension. ``config`` is its own, before any step's override.

    ``versions`` are the enabled versions of it, itself not among them; a version has none of its own.
    """

    id: str
    type: ExtensionType
    subject: str
    enabled: bool
    timeout_ms: int
    retry: int
    retry_on_timeout: bool | None
    failure_mode: FailureMode
    fallback_id: str | None
    config: Mapping[str, Any]
    config_json: orjson.Fragment
    breaker: BreakerSettings
    concurrency: int
    budget: BudgetSettings | None
    version: str | None
    version_of: str | None
    weight: int
    sticky_key: str | None
    generation: int
    record: ExtensionRecord
    versions: tuple[CompiledExtension, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One extension as one step calls it.

    ``absent`` says why there is nobody to call (unknown, disabled, of another type), and is None otherwise.
    ``breaker_key`` is the extension's id, unless the step has breaker settings of its own or is a shadow;
    ``load_key``, that of calls in flight and latency, is so unless the step is a shadow. ``gate`` is the
    key of the step's own bulkhead, which admits ``gate_limit`` calls, and ``budget_key`` that of the retry
    budget that the step, the policy or the extension states; both are None where nobody states one.

    ``named`` is the id by which the policy names it. Where that extension has versions, ``versions`` holds a
    call for each, itself included, and ``share`` is the weight of one among them.
    """

    extension_id: str
    type: ExtensionType
    subject: str
    absent: str | None
    timeout_s: float
    retry: int
    retry_on_timeout: bool
    fallback_on_timeout: bool
    config: Mapping[str, Any]
    config_json: orjson.Fragment
    breaker_key: str
    breaker: BreakerSettings
    slow_s: float
    concurrency: int
    weight: int = 1
    named: str = ""
    version: str | None = None
    share: int = 1
    versions: tuple[Call, ...] = ()
    version_key: str | None = None
    load_key: str = ""
    gate: str | None = None
    gate_limit: int = 0
    budget_key: str | None = None
    budget: BudgetSettings | None = None
    hints: Hints = NO_HINTS


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A pre, validator or post step. ``fallback`` is set exactly with failure mode ``fallback``."""

    name: str
    action: Action
    call: Call
    failure_mode: FailureMode
    fallback: Call | None
    shadow: bool
    group: str | None
    overlap: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Canary:
    """Who is asked first by ``percent`` of the requests; ``sticky_key`` None decides by the request's id."""

    call: Call
    percent: int
    sticky_key: str | None
    salt: str


@dataclass(frozen=True, slots=True, eq=False)
class ProviderStep:
    """The select_provider step. ``sticky_key`` None, like ``tenant``, hashes the tenant.

    ``versioned`` says that a candidate has versions, which the hot path of all others need not ask.
    """

    name: str
    candidates: tuple[Call, ...]
    strategy: Strategy
    sticky_key: str | None
    fallback: tuple[Call, ...]
    canary: Canary | None = None
    versioned: bool = False
    weights: Weights = ALIKE


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A policy ready to run. A stage is one step, or the validators of one group, which run side by side.

    ``overlap`` are the validators that run beside the provider call.
    """

    policy_id: str
    deadline_s: float
    before: tuple[tuple[Step, ...], ...]
    provider: ProviderStep
    after: tuple[Step, ...]
    overlap: tuple[Step, ...] = ()

    def calls(self) -> list[Call]:
        """Every extension that a request on this route may meet, each version of it too."""
        steps = [*(step for stage in self.before for step in stage), *self.overlap, *self.after]
        found = [call for step in steps for call in (step.call, step.fallback) if call is not None]
        canary = () if self.provider.canary is None else (self.provider.canary.call,)
        found += [*self.provider.candidates, *canary, *self.provider.fallback]
        return [leaf for call in found for leaf in call.versions or (call,)]


@dataclass(frozen=True, slots=True, eq=False)
class Criteria:
    """When a policy applies. Empty means any. ``sticky_key`` names what percent is hashed by; see
    ``keys``.
    """

    tenants: frozenset[str]
    environments: frozenset[str]
    models: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    percent: int
    sticky_key: str | None


@dataclass(frozen=True, slots=True, eq=False)
class CompiledPolicy:
    """A valid policy. ``needs`` are the extensions it was resolved against: the same ones allow its reuse."""

    id: str
    name: str
    priority: int
    created_at: str
    criteria: Criteria
    route: Route
    complexity: int
    needs: tuple[tuple[str, CompiledExtension | None], ...]
    record: PolicyRecord
    hints: tuple[Notice, ...] = ()
    """What its author should hear of it alone (:mod:`.hints`)."""
