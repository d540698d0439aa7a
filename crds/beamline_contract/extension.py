"""The ``Extension`` resource: a provider, a guard or a transformer that the router can call.

Every bound and default here is the CRD's as well (:mod:`.crd` generates it). Defaults come from contract.md's
"Time and retry" and "What a workload gets"; docs/decisions says why where we chose.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from .canary import VersionCanary
from .model import FreeForm, Model, Rule
from .names import RESERVED_SUBJECT_PREFIXES, ExtensionType
from .scalars import Namespace, ObjectName, Retry, Subject, TimeoutMs
from .workload import Workload

FailureMode = Literal["open", "closed", "fallback"]


StickyKey = Annotated[
    str, StringConstraints(min_length=1, max_length=160, pattern=r"^(tenant|header:[a-z0-9-]{1,128})$")
]
"""What a choice is hashed by: ``tenant``, or ``header:NAME`` (the tenant where the header is absent)."""


class ExtensionRef(Model):
    """Names an Extension, of the same namespace unless ``namespace`` says otherwise."""

    name: ObjectName
    namespace: Namespace | None = None


class SlowCall(Model):
    """When calls count as slow, and how many of them open the breaker."""

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of slow calls among the calls of the window that opens the breaker."""
    min_calls: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Calls in the window below which slowness opens nothing."""
    threshold_ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    """A call is slow from this share of its step timeout on."""


class CircuitBreaker(Model):
    """Breaker of one extension in one router. Defaults: architecture.md, "Rules of the pipeline"."""

    failure_threshold: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Failures within the window that may open the breaker."""
    monitoring_period_ms: Annotated[int, Field(ge=1_000, le=600_000)] = 60_000
    """Length of the sliding window, milliseconds."""
    min_failure_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of failed calls in the window that must be reached too; 0 gives the plain count rule."""
    recovery_timeout_ms: Annotated[int, Field(ge=100, le=600_000)] = 30_000
    """How long the breaker stays open the first time; doubles each time it opens again."""
    max_recovery_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 300_000
    """Upper bound of that doubling."""
    half_open_successes: Annotated[int, Field(ge=1, le=100)] = 3
    """Successful probes in a row that close the breaker."""
    slow_call: SlowCall = SlowCall()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.maxRecoveryTimeoutMs >= self.recoveryTimeoutMs",
            message="maxRecoveryTimeoutMs must be at least recoveryTimeoutMs",
            field="maxRecoveryTimeoutMs",
            holds=lambda self, _: self.max_recovery_timeout_ms >= self.recovery_timeout_ms,
        ),
    )


class RetryBudget(Model):
    """How many retries an extension may cause in one router.

    Defaults: architecture.md, "Rules of the pipeline".
    """

    tokens: Annotated[int, Field(ge=1, le=1_000)] = 10
    """Tokens in a full bucket; each failure takes one."""
    refill: Annotated[float, Field(ge=0.001, le=1)] = 0.1
    """Tokens that a success gives back."""
    threshold: Annotated[int, Field(ge=0, le=999)] = 5
    """A retry needs more tokens than this."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.threshold < self.tokens",
            message="threshold must be less than tokens, or nothing would ever be retried",
            field="threshold",
            holds=lambda self, _: self.threshold < self.tokens,
        ),
    )


class ExtensionSpec(Model):
    """Desired state of an Extension."""

    type: ExtensionType
    """What the extension does in the pipeline. Immutable."""
    subject: Subject | None = None
    """NATS subject it listens on; derived from type and name where absent. Immutable."""
    timeout_ms: TimeoutMs = 5_000
    """Time for one attempt, milliseconds."""
    retry: Retry = 1
    """Extra attempts on this extension after a retryable error."""
    retry_on_timeout: bool | None = None
    """Whether a timeout is retried. Default: true, but false for providers, whose calls cost money."""
    enabled: bool = True
    """False takes the extension out of every router and its workload to zero."""
    suspend: bool = False
    """True stops reconciling and changes nothing."""
    failure_mode: FailureMode | None = None
    """What a failed step does to the request.

    Default: pre and post ``open``, validator and provider ``closed``.
    """
    fallback_ref: ExtensionRef | None = None
    """The extension that is asked instead, with failureMode ``fallback``."""
    config: FreeForm = Field(default_factory=dict)
    """Sent with every request; its shape is the extension's own."""
    config_schema: FreeForm | None = None
    """JSON Schema that ``config`` must satisfy."""
    metadata: FreeForm = Field(default_factory=dict)
    """Free notes for people and tools; not sent to the extension."""
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Calls that one router keeps in flight to this extension."""
    retry_budget: RetryBudget | None = None
    """How many retries this extension may cause in one router; default: the defaults of each field."""
    version: (
        Annotated[
            str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
        ]
        | None
    ) = None
    """Version of this extension; ``v`` and a number also ends a derived subject."""
    version_of: ObjectName | None = None
    """The Extension of the same namespace and type that this one is a version of.

    Steps that name that Extension are divided among it and its enabled versions, by weight.
    """
    weight: Annotated[int, Field(ge=0, le=1_000)] = 100
    """Share of traffic relative to other versions side by side; 0 takes none."""
    canary: VersionCanary | None = None
    """On a version: takes over the traffic of the base step by step; ``weight`` is left aside."""
    sticky_key: StickyKey | None = None
    """On the Extension that has versions: the same key meets the same version. Default: drawn per request."""
    allowed_namespaces: Annotated[tuple[Namespace, ...], Field(strict=False, max_length=64)] = ()
    """Other namespaces whose RoutingPolicies may refer to this Extension."""
    deletion_policy: Literal["Delete", "Retain"] = "Delete"
    """Retain keeps registry row and workload when the object is deleted."""
    workload: Workload | None = None
    """What Beamline runs for it; none for an extension that runs elsewhere."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.type == oldSelf.type",
            message="type is immutable: create another Extension instead",
            field="type",
            holds=lambda self, old: self.type == old.type,
            transition=True,
        ),
        Rule(
            cel="has(self.subject) == has(oldSelf.subject) && "
            "(!has(self.subject) || self.subject == oldSelf.subject)",
            message="subject is immutable: create another Extension instead",
            field="subject",
            holds=lambda self, old: self.subject == old.subject,
            transition=True,
        ),
        Rule(
            cel="!has(self.subject) || !["
            + ", ".join(f"'{prefix}'" for prefix in RESERVED_SUBJECT_PREFIXES)
            + "].exists(p, self.subject.startsWith(p))",
            message="subject must not start with "
            + ", ".join(RESERVED_SUBJECT_PREFIXES)
            + ": reserved for Beamline itself",
            field="subject",
            holds=lambda self, _: (
                self.subject is None or not self.subject.startswith(RESERVED_SUBJECT_PREFIXES)
            ),
        ),
        Rule(
            cel="(has(self.failureMode) && self.failureMode == 'fallback') == has(self.fallbackRef)",
            message="failureMode fallback and fallbackRef go together: set both or neither",
            field="fallbackRef",
            holds=lambda self, _: (self.failure_mode == "fallback") == (self.fallback_ref is not None),
        ),
        Rule(
            cel="!has(self.versionOf) || has(self.version)",
            message="version is required with versionOf: say which version this is",
            field="version",
            holds=lambda self, _: self.version_of is None or self.version is not None,
        ),
        Rule(
            cel="!has(self.canary) || has(self.versionOf)",
            message="a canary is a version: name its base in versionOf",
            field="canary",
            holds=lambda self, _: self.canary is None or self.version_of is not None,
        ),
    )


def default_failure_mode(ext_type: ExtensionType) -> FailureMode:
    """pre and post ``open``, validator and provider ``closed`` (architecture.md, "Rules of the pipeline")."""
    return "open" if ext_type in {"pre", "post"} else "closed"
