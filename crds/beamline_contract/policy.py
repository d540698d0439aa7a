"""The ``RoutingPolicy`` resource: which requests, through which steps, to which provider.

Steps run in order; validators of one ``group`` run side by side. Exactly one step selects the provider: what
stands before it prepares and checks the request, what stands after it works on the answer.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from .extension import CircuitBreaker, ExtensionRef, FailureMode, RetryBudget, StickyKey
from .model import FreeForm, Model, Rule, map_as_the_api_server_reads
from .names import Action
from .scalars import Retry, TimeoutMs
from .wire import MAX_STEPS

Strategy = Literal["ordered", "weighted", "least_inflight", "latency", "sticky", "score"]

TenantName = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]{1,128}$")
]
EnvironmentName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._-]+$")]
ModelGlob = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._:/*?-]+$")]
"""A model name; ``*`` stands for any characters, ``?`` for one."""
HeaderName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[a-z0-9-]+$")]
HeaderValue = Annotated[str, StringConstraints(max_length=256, pattern=r"^[\x20-\x7e]*$")]
Label = Annotated[
    str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$")
]


class Match(Model):
    """Which requests the policy takes. Every given criterion must hold; within a list one entry is enough.

    An absent criterion matches everything. Of several matching policies the highest priority wins, then the
    most specific, then the oldest, then the first by name.
    """

    tenants: Annotated[tuple[TenantName, ...], Field(strict=False, max_length=256)] = ()
    environments: Annotated[tuple[EnvironmentName, ...], Field(strict=False, max_length=32)] = ()
    models: Annotated[tuple[ModelGlob, ...], Field(strict=False, max_length=64)] = ()
    headers: Annotated[
        dict[HeaderName, HeaderValue], Field(max_length=16), BeforeValidator(map_as_the_api_server_reads)
    ] = Field(default_factory=dict)
    """Header name (lower case) to the exact value it must have."""
    percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Share of the otherwise matching requests, chosen by a hash of the request's sticky key."""


class ProviderChoice(Model):
    """One candidate of a select_provider step."""

    extension_ref: ExtensionRef
    weight: Annotated[int, Field(ge=0, le=1_000)] = 1
    """Share relative to the other candidates, for the weighted strategies."""


class FallbackChoice(Model):
    """One provider to ask when the selected one can't answer."""

    extension_ref: ExtensionRef


class ScoreWeights(Model):
    """How much each hint counts in the strategy ``score``; only their proportions matter."""

    quality: Annotated[float, Field(ge=0, le=100)] = 1
    """Weight of `metadata.score.quality` of the Extensions."""
    cost: Annotated[float, Field(ge=0, le=100)] = 1
    """Weight of `metadata.score.cost`: the cheaper, the better."""
    latency: Annotated[float, Field(ge=0, le=100)] = 1
    """Weight of the latency that the router measures, or of `metadata.score.latencyMs` until it has."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.quality > 0.0 || self.cost > 0.0 || self.latency > 0.0",
            message="at least one of quality, cost and latency must be above 0",
            field="quality",
            holds=lambda self, _: self.quality > 0 or self.cost > 0 or self.latency > 0,
        ),
    )


class Canary(Model):
    """A provider that is tried on a share of the requests before it takes part in the choice."""

    extension_ref: ExtensionRef
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of the requests that ask the canary first; raising it only ever adds keys."""
    sticky_key: StickyKey | None = None
    """What the share is decided by; default: the request's id."""


class Step(Model):
    """One step of the pipeline. What it leaves out comes from the Extension it runs."""

    action: Action
    name: Label | None = None
    """Name in trails, metrics and errors; default: the extension's id."""
    extension_ref: ExtensionRef | None = None
    config: FreeForm | None = None
    """Laid over the Extension's config, key by key at the top level."""
    timeout_ms: TimeoutMs | None = None
    retry: Retry | None = None
    retry_on_timeout: bool | None = None
    failure_mode: FailureMode | None = None
    fallback_ref: ExtensionRef | None = None
    """The extension that is asked instead, with failureMode ``fallback`` (select_provider: see fallback)."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """A shadow step runs and is recorded, but never changes or delays the answer."""
    group: Label | None = None
    """Neighbouring validators of the same group run in parallel."""
    overlap: bool = False
    """On the validators directly before select_provider: they run beside the provider call.

    The answer is held back until the verdict, and a rejection cancels the call.
    """
    circuit_breaker: CircuitBreaker | None = None
    """A breaker of this step's own, instead of the Extension's."""
    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Calls that one router keeps in flight from this step, within the Extension's own limit."""
    retry_budget: RetryBudget | None = None
    """A retry budget of this step's own, instead of the policy's or the Extension's."""
    strategy: Strategy | None = None
    """How select_provider chooses; default ``ordered``, or ``weighted`` where weights differ."""
    sticky_key: StickyKey | None = None
    """What the sticky strategy hashes: ``tenant`` (default) or ``header:NAME``."""
    score: ScoreWeights | None = None
    """What counts for the strategy ``score``; default: quality, cost and latency alike."""
    providers: Annotated[tuple[ProviderChoice, ...], Field(strict=False, max_length=16)] = ()
    fallback: Annotated[tuple[FallbackChoice, ...], Field(strict=False, max_length=8)] = ()
    canary: Canary | None = None
    """A provider that a share of the requests asks before the chosen one."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.action == 'select_provider') != has(self.extensionRef)",
            message="extensionRef is required, except on select_provider, which uses providers instead",
            field="extensionRef",
            holds=lambda self, _: (self.action == "select_provider") != (self.extension_ref is not None),
        ),
        Rule(
            cel="(self.action == 'select_provider') == (has(self.providers) && self.providers.size() > 0)",
            message="providers must have at least one entry on select_provider, and be absent on other steps",
            field="providers",
            holds=lambda self, _: (self.action == "select_provider") == bool(self.providers),
        ),
        Rule(
            cel="self.action == 'select_provider' || !(has(self.strategy) || has(self.stickyKey) "
            "|| has(self.canary) || (has(self.fallback) && self.fallback.size() > 0))",
            message="strategy, stickyKey, canary and fallback belong to select_provider only",
            field="strategy",
            holds=lambda self, _: (
                self.action == "select_provider"
                or not (self.strategy or self.sticky_key or self.canary or self.fallback)
            ),
        ),
        Rule(
            cel="!has(self.score) || (has(self.strategy) && self.strategy == 'score')",
            message="score belongs to strategy score only",
            field="score",
            holds=lambda self, _: self.score is None or self.strategy == "score",
        ),
        Rule(
            cel="self.action == 'extension_validator' || !has(self.group)",
            message="group belongs to extension_validator only: other steps depend on the one before",
            field="group",
            holds=lambda self, _: self.action == "extension_validator" or self.group is None,
        ),
        Rule(
            cel="!self.overlap || (self.action == 'extension_validator' && self.mode == 'enforce' "
            "&& !has(self.group))",
            message="overlap belongs to an enforced extension_validator without group: "
            "those that overlap run side by side anyway",
            field="overlap",
            holds=lambda self, _: (
                not self.overlap
                or (self.action == "extension_validator" and self.mode == "enforce" and self.group is None)
            ),
        ),
        Rule(
            cel="self.action != 'select_provider' || self.mode == 'enforce'",
            message="mode shadow is not possible on select_provider: the request needs an answer",
            field="mode",
            holds=lambda self, _: self.action != "select_provider" or self.mode == "enforce",
        ),
        Rule(
            cel="self.action == 'select_provider' ? !has(self.fallbackRef) && (!has(self.failureMode) || "
            "self.failureMode == 'closed') : "
            "(has(self.failureMode) && self.failureMode == 'fallback') == has(self.fallbackRef)",
            message="failureMode fallback and fallbackRef go together; "
            "select_provider is always closed and has fallback instead",
            field="fallbackRef",
            holds=lambda self, _: _failure_mode_fits(self),
        ),
        Rule(
            cel="!has(self.providers) || self.providers.size() == 0 || "
            "self.providers.exists(p, p.weight > 0)",
            message="at least one provider must have a weight above 0",
            field="providers",
            holds=lambda self, _: not self.providers or any(choice.weight > 0 for choice in self.providers),
        ),
    )


def _failure_mode_fits(step: Step) -> bool:
    if step.action == "select_provider":
        return step.fallback_ref is None and step.failure_mode in {None, "closed"}
    return (step.failure_mode == "fallback") == (step.fallback_ref is not None)


_PROVIDER = "select_provider"


def _never_follows(steps: tuple[Step, ...], earlier: set[str], later: set[str]) -> bool:
    return not any(a.action in earlier and b.action in later for a, b in pairwise(steps))


def _neighbours_cel(holds: str) -> str:
    """``holds`` for every two neighbours, the steps at ``i - 1`` and ``i``.

    An API server evaluates every rule at every write of an object, its status and finalizers included, and
    this walk costs it as much as all other rules together. So no rule begins with it: something cheap that is
    true of nearly every policy, and implies the rule, stands before it.
    """
    return f"{list(range(1, MAX_STEPS))}.all(i, i >= self.steps.size() || {holds})"


def _overlaps_last(steps: tuple[Step, ...]) -> bool:
    return all(not a.overlap or b.overlap or b.action == _PROVIDER for a, b in pairwise(steps))


class RoutingPolicySpec(Model):
    """Desired state of a RoutingPolicy."""

    match: Match = Match()
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    """Higher wins over lower before anything else is compared."""
    deadline_ms: TimeoutMs = 60_000
    """Time for the whole request, milliseconds; it ends it whatever timeouts and retries would allow."""
    retry_budget: RetryBudget | None = None
    """Retry budget of this policy's own for each extension it calls; default: the Extension's."""
    suspend: bool = False
    """True stops reconciling and changes nothing."""
    steps: Annotated[tuple[Step, ...], Field(strict=False, min_length=1, max_length=16)]
    """What happens to a request, in order; exactly one step selects the provider."""
    fallback: Annotated[tuple[FallbackChoice, ...], Field(strict=False, max_length=8)] = ()
    """Providers to ask in order when the selected one can't answer and the step names no fallback."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.steps.exists_one(s, s.action == 'select_provider')",
            message="steps must hold exactly one select_provider",
            field="steps",
            holds=lambda self, _: sum(step.action == _PROVIDER for step in self.steps) == 1,
        ),
        Rule(
            cel="self.steps.map(s, s.action in ['select_provider', 'extension_post']).isSorted()",
            message="extension_pre and extension_validator must stand before select_provider and "
            "extension_post",
            field="steps",
            holds=lambda self, _: _never_follows(
                self.steps, {_PROVIDER, "extension_post"}, {"extension_pre", "extension_validator"}
            ),
        ),
        Rule(
            cel="self.steps.map(s, s.action == 'extension_post').isSorted() || "
            + _neighbours_cel(
                "!(self.steps[i - 1].action == 'extension_post' && self.steps[i].action == 'select_provider')"
            ),
            message="extension_post must stand after select_provider",
            field="steps",
            holds=lambda self, _: _never_follows(self.steps, {"extension_post"}, {_PROVIDER}),
        ),
        Rule(
            cel="!self.steps.exists(s, s.overlap) || "
            + _neighbours_cel(
                "!self.steps[i - 1].overlap || self.steps[i].overlap || "
                "self.steps[i].action == 'select_provider'"
            ),
            message="validators with overlap must stand directly before select_provider",
            field="steps",
            holds=lambda self, _: _overlaps_last(self.steps),
        ),
    )
