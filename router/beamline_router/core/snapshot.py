"""The snapshot: all that a router knows, compiled once, immutable, swapped as a whole.

:func:`compile_snapshot` is pure. A record that can't be compiled is isolated: it is reported with field and
reason, its last good version (from the snapshot before) keeps serving, and everything else updates. A record
that did not change keeps its compiled object; a policy does if the extensions that it names kept theirs too.
The cost is linear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeVar

from beamline_contract.names import ExtensionType
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_contract.reports import Notice, Refused

from .compile_extension import compile_extension, link_versions
from .compile_policy import compile_policy
from .matching import Matcher, visible_models
from .notices import notices_of
from .reading import BrokenRecordError
from .request import Request
from .route import CompiledExtension, CompiledPolicy, Route
from .slices import Sliced, batches, finish
from .upkeep import Upkeep

# Beyond BrokenRecordError: whatever else registry content can provoke must not stop the other records.
_UNFORESEEN = (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError, OverflowError)

_Compiled = TypeVar("_Compiled", CompiledExtension, CompiledPolicy)


class Snapshot:
    """Immutable. Look-ups know enabled extensions only; a disabled one is as absent as an unknown one."""

    __slots__ = ("_all", "_by_subject", "_by_type", "_enabled", "_policies", "matcher", "revision", "upkeep")

    def __init__(self, revision: int, matcher: Matcher, upkeep: Upkeep) -> None:
        self.revision = revision
        self.matcher = matcher
        self.upkeep = upkeep
        self._all: dict[str, CompiledExtension] = {}
        self._policies: dict[str, CompiledPolicy] = {}
        self._enabled: dict[str, CompiledExtension] = {}
        self._by_subject: dict[str, CompiledExtension] = {}
        self._by_type: dict[ExtensionType, list[CompiledExtension]] = {}

    @classmethod
    def building(
        cls,
        revision: int,
        extensions: Mapping[str, CompiledExtension],
        policies: Mapping[str, CompiledPolicy],
        *,
        matcher: Matcher,
        upkeep: Upkeep,
    ) -> Sliced[Snapshot]:
        """Makes a snapshot in pieces."""
        made = cls(revision, matcher, upkeep)
        yield from made._file(extensions, policies)
        return made

    def _file(
        self, extensions: Mapping[str, CompiledExtension], policies: Mapping[str, CompiledPolicy]
    ) -> Sliced[None]:
        self._all.update(extensions)
        self._policies.update(policies)
        yield
        for batch in batches(extensions.items()):
            for key, extension in batch:
                if extension.enabled:
                    self._enabled[key] = extension
                    self._by_subject[extension.subject] = extension
                    self._by_type.setdefault(extension.type, []).append(extension)
            yield

    @classmethod
    def empty(cls) -> Snapshot:
        """What a router serves before it has read anything: no route, so NOT_FOUND for every request."""
        return cls(0, Matcher(), Upkeep({}, {}, frozenset()))

    def lookup(self, extension_id: str) -> CompiledExtension | None:
        """The enabled extension of that id."""
        return self._enabled.get(extension_id)

    def lookup_by_subject(self, subject: str) -> CompiledExtension | None:
        """The enabled extension that listens on that subject."""
        return self._by_subject.get(subject)

    def lookup_by_type(self, extension_type: ExtensionType) -> Sequence[CompiledExtension]:
        """All enabled extensions of one type; read-only."""
        return self._by_type.get(extension_type, ())

    def policy(self, policy_id: str) -> CompiledPolicy | None:
        """The policy of that id."""
        return self._policies.get(policy_id)

    def route_for(self, request: Request) -> Route | None:
        """The route of the policy that the request names, else of the one that matches it."""
        named = request.policy
        found = self.matcher.find(request) if named is None else self._policies.get(named)
        return None if found is None else found.route

    def models(self, tenant: str, environment: str | None, headers: Mapping[str, str]) -> tuple[str, ...]:
        """Every model that a policy names without a wildcard and that such a caller can ask for, sorted."""
        return visible_models(self.matcher, tenant, environment, headers)

    def is_for(self, policy_id: str, tenant: str, environment: str | None) -> bool:
        """Whether a caller bound to a tenant may name this policy; True where there is none of that id."""
        found = self._policies.get(policy_id)
        if found is None:
            return True
        criteria = found.criteria
        return (not criteria.tenants or tenant in criteria.tenants) and (
            not criteria.environments or environment in criteria.environments
        )

    @property
    def extensions(self) -> int:
        """How many extensions it holds, disabled ones included."""
        return len(self._all)

    @property
    def enabled_extensions(self) -> int:
        """How many extensions a request can meet."""
        return len(self._enabled)

    @property
    def policies(self) -> int:
        """How many policies it holds."""
        return len(self._policies)

    @property
    def containers(self) -> list[object]:
        """Whatever grows with the table."""
        upkeep, matcher = self.upkeep, self.matcher
        own = [self._all, self._policies, self._enabled, self._by_subject, self._by_type]
        return [*own, *matcher.containers, upkeep.breakers, upkeep.budgets, upkeep.loads]

    @property
    def compiled_extensions(self) -> Mapping[str, CompiledExtension]:
        """By id, disabled ones included; read-only."""
        return MappingProxyType(self._all)

    @property
    def compiled_policies(self) -> Mapping[str, CompiledPolicy]:
        """By id; read-only."""
        return MappingProxyType(self._policies)


@dataclass(frozen=True, slots=True)
class Compilation:
    """A snapshot, what had to be refused for it, and what authors should know."""

    snapshot: Snapshot
    refused: tuple[Refused, ...]
    notices: tuple[Notice, ...]


def compile_snapshot(
    extensions: Iterable[ExtensionRecord],
    policies: Iterable[PolicyRecord],
    *,
    revision: int,
    previous: Snapshot | None,
) -> Compilation:
    """Compiles all records of the registry at ``revision``. Never raises for what a record holds."""
    return finish(compile_in_slices(extensions, policies, revision=revision, previous=previous))


def compile_in_slices(
    extensions: Iterable[ExtensionRecord],
    policies: Iterable[PolicyRecord],
    *,
    revision: int,
    previous: Snapshot | None,
) -> Sliced[Compilation]:
    """:func:`compile_snapshot` in pieces."""
    refused: list[Refused] = []
    old_extensions = previous.compiled_extensions if previous is not None else {}
    old_policies = previous.compiled_policies if previous is not None else {}
    table = yield from _compile_extensions(extensions, old_extensions, refused)
    compiled = yield from _compile_policies(policies, table, old_policies, refused)
    matcher = yield from Matcher.building(compiled.values())
    upkeep = yield from Upkeep.gathering(table, compiled.values())
    snapshot = yield from Snapshot.building(revision, table, compiled, matcher=matcher, upkeep=upkeep)
    found: list[Notice] = []
    for batch in batches(matcher.rules):
        for rule in batch:
            found += notices_of(rule, matcher)
            found += rule.policy.hints
        yield
    return Compilation(snapshot, tuple(refused), tuple(found))


def _compile_extensions(
    records: Iterable[ExtensionRecord], old: Mapping[str, CompiledExtension], refused: list[Refused]
) -> Sliced[dict[str, CompiledExtension]]:
    table: dict[str, CompiledExtension] = {}
    subjects: dict[str, str] = {}
    for batch in batches(records):
        for record in batch:
            compiled = _compile_extension(record, old, refused)
            if compiled is None:
                continue
            holder = compiled.id if compiled.id in table else subjects.get(compiled.subject)
            if holder is not None:
                taken = BrokenRecordError(
                    "spec.subject", f"{compiled.subject} is already the subject of {holder}"
                )
                refused.append(_refused("Extension", record, taken))
                continue
            table[compiled.id] = compiled
            subjects[compiled.subject] = compiled.id
        yield
    link_versions(table)
    yield
    return table


def _compile_extension(
    record: ExtensionRecord, old: Mapping[str, CompiledExtension], refused: list[Refused]
) -> CompiledExtension | None:
    last_good = _last_good(old, record.id)
    if last_good is not None and (last_good.record is record or last_good.record == record):
        return last_good
    try:
        return compile_extension(record)
    except (BrokenRecordError, *_UNFORESEEN) as error:
        refused.append(_refused("Extension", record, error))
        return last_good


def _compile_policies(
    records: Iterable[PolicyRecord],
    table: Mapping[str, CompiledExtension],
    old: Mapping[str, CompiledPolicy],
    refused: list[Refused],
) -> Sliced[dict[str, CompiledPolicy]]:
    compiled: dict[str, CompiledPolicy] = {}
    for record in records:
        policy = _compile_policy(record, table, old, refused)
        if policy is not None:
            compiled[policy.id] = policy
        yield
    return compiled


def _compile_policy(
    record: PolicyRecord,
    table: Mapping[str, CompiledExtension],
    old: Mapping[str, CompiledPolicy],
    refused: list[Refused],
) -> CompiledPolicy | None:
    last_good = _last_good(old, record.id)
    if last_good is None or not (last_good.record is record or last_good.record == record):
        try:
            return compile_policy(record, table)
        except (BrokenRecordError, *_UNFORESEEN) as error:
            refused.append(_refused("RoutingPolicy", record, error))
    # An equal record, or the last good one of a broken record, compiled before: it can only fail now for
    # reasons of its extensions, which never count.
    if last_good is None or _same_needs(last_good, table):
        return last_good
    return compile_policy(last_good.record, table)


def _last_good(old: Mapping[str, _Compiled], record_id: object) -> _Compiled | None:
    return old.get(record_id) if isinstance(record_id, str) else None


def _same_needs(policy: CompiledPolicy, table: Mapping[str, CompiledExtension]) -> bool:
    return all(table.get(extension_id) is extension for extension_id, extension in policy.needs)


def _refused(
    kind: Literal["Extension", "RoutingPolicy"], record: ExtensionRecord | PolicyRecord, error: Exception
) -> Refused:
    if isinstance(error, BrokenRecordError):
        field, reason = error.field, error.reason
    else:
        field, reason = "spec", f"could not be compiled: {type(error).__name__}"
    generation: object = record.generation
    return Refused(
        kind=kind,
        id=str(record.id)[:253],
        generation=generation if isinstance(generation, int) and not isinstance(generation, bool) else 0,
        field=field,
        reason=reason,
    )
