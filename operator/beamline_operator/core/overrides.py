"""What the steps of a policy lay over the configuration of the extensions that they call. Pure.

A router sends each extension its own ``config`` with the step's on top, and the extension refuses what breaks
its schema. So the step's share is held against the same schemas as the Extension's own: the one that the
running extension publishes, and ``spec.configSchema``. Versions of an extension each have their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from beamline_contract.extension import ExtensionRef
from beamline_contract.objects import Extension, ObjectKey, RoutingPolicy

from .config_schema import override_faults


@dataclass(frozen=True, slots=True)
class Override:
    """One step's ``config`` over that of one extension. ``at`` is its field path in the policy."""

    at: str
    config: Mapping[str, Any]
    extension: ObjectKey
    base: Mapping[str, Any]
    schemas: tuple[Mapping[str, Any], ...]

    def faults(self) -> tuple[str, ...]:
        """A sentence for each field of the step that breaks a schema, with its path."""
        found = [
            fault
            for schema in self.schemas
            for fault in override_faults(schema, self.base, self.config, self.at)
        ]
        return tuple(dict.fromkeys(found))


def overridden(policy: RoutingPolicy) -> Iterator[tuple[str, Mapping[str, Any], ExtensionRef]]:
    """(field path of the config, the config, whom it is sent to), for each extension that gets it.

    Fallbacks are asked with their own configuration only, as in the router.
    """
    for number, step in enumerate(policy.spec.steps):
        if not step.config:
            continue
        refs = [choice.extension_ref for choice in step.providers]
        if step.extension_ref is not None:
            refs.append(step.extension_ref)
        if step.canary is not None:
            refs.append(step.canary.extension_ref)
        for ref in refs:
            yield f"spec.steps[{number}].config", step.config, ref


def overrides_of(
    policy: RoutingPolicy,
    targets: Callable[[ExtensionRef], Iterable[Extension]],
    published: Callable[[str], Mapping[str, Any] | None],
) -> tuple[Override, ...]:
    """Every override of ``policy`` that there is a schema for.

    ``targets`` are the extension that a reference leads to and its versions; ``published`` is the schema of
    the one that listens on a subject.
    """
    found = []
    for at, config, ref in overridden(policy):
        for extension in targets(ref):
            schemas = (published(extension.subject), extension.spec.config_schema)
            known = tuple(schema for schema in schemas if schema is not None)
            if known:
                found.append(Override(at, config, extension.key, extension.spec.config, known))
    return tuple(found)
