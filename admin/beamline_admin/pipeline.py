"""A policy as people draw it: stages in order, what runs side by side in each, and what looks wrong about it.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from beamline_contract.names import TYPE_OF_ACTION
from beamline_contract.projection import COMPLEXITY_WARNING, PolicyRecord, complexity

from .catalogue import View

_WORDS: Final = {"unknown": "not in the registry", "disabled": "disabled: its step is skipped or fails"}
COMPLEXITY_HINT: Final = "put validators into one group, or use fewer steps or fallbacks"


@dataclass(frozen=True, slots=True)
class Node:
    """One extension in a stage. ``note`` is what sets it apart: ``90 of 100``, ``shadow``, ``disabled``,
    ``unknown``.
    """

    id: str
    note: str = ""
    fault: str = ""
    """``unknown`` or ``disabled``; empty where there is nothing wrong."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One column of the drawing: ``nodes`` run side by side, or are chosen from; ``fallback`` is asked in
    order.
    """

    type: str
    nodes: tuple[Node, ...]
    fallback: tuple[Node, ...] = ()


def stages_of(policy: PolicyRecord, view: View) -> list[Stage]:
    """The stages of a policy. Neighbouring validators of one group share a stage, as they run in parallel."""
    drawn: list[Stage] = []
    group_before: str | None = None
    for step in policy.policy.get("steps", ()):
        kind = TYPE_OF_ACTION.get(step["action"], step["action"])
        group = step.get("group")
        if kind == "provider":
            fallback = step.get("fallback") or policy.policy.get("fallback", ())
            nodes = tuple(_node(choice, view, _share(choice, step)) for choice in _choices(step))
            stage = Stage(kind, nodes, tuple(_node({"id": entry}, view) for entry in fallback))
        else:
            note = "shadow" if step.get("mode") == "shadow" else ""
            instead = (_node({"id": step["fallback_id"]}, view),) if "fallback_id" in step else ()
            stage = Stage(kind, (_node({"id": step["extension_id"]}, view, note),), instead)
        if group is not None and group == group_before:
            stage = Stage(kind, drawn[-1].nodes + stage.nodes, drawn.pop().fallback + stage.fallback)
        drawn.append(stage)
        group_before = group
    return drawn


def hints_of(policy: PolicyRecord, view: View) -> list[str]:
    """What somebody should look at, a sentence each: references that lead nowhere, steps that are off,
    complexity.
    """
    hints = [f"{node.id} is {_WORDS[node.fault]}" for node in _unique(policy, view) if node.fault]
    if (score := complexity(policy.policy)) > COMPLEXITY_WARNING:
        hints.append(f"complexity {score} is above {COMPLEXITY_WARNING}: {COMPLEXITY_HINT}")
    return hints


def match_of(policy: PolicyRecord) -> str:
    """Which requests the policy takes, in words."""
    match: Mapping[str, Any] = policy.policy.get("match", {})
    parts = [
        f"{name} {', '.join(match[name])}"
        for name in ("tenants", "environments", "models")
        if match.get(name)
    ]
    parts += [f"header {name}" for name in match.get("headers", {})]
    if match.get("percent", 100) != 100:
        parts.append(f"{match['percent']} %")
    return " · ".join(parts) or "every request"


def _unique(policy: PolicyRecord, view: View) -> Iterator[Node]:
    nodes = {node.id: node for stage in stages_of(policy, view) for node in (*stage.nodes, *stage.fallback)}
    yield from nodes.values()


def _choices(step: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "provider_id" in step:
        return [{"id": step["provider_id"]}]
    return [{"id": choice["provider_id"], "weight": choice["weight"]} for choice in step.get("providers", ())]


def _share(choice: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    weights = [each["weight"] for each in step.get("providers", ())]
    strategy = step.get("strategy", "weighted" if len(set(weights)) > 1 else "ordered")
    return f"{choice['weight']} of {sum(weights)}" if weights and strategy == "weighted" else ""


def _node(choice: Mapping[str, Any], view: View, note: str = "") -> Node:
    found = view.extensions.get(choice["id"])
    if found is None:
        fault = "unknown"
    elif not found.enabled:
        fault = "disabled"
    else:
        return Node(choice["id"], note)
    return Node(choice["id"], ", ".join(filter(None, (note, fault))), fault)
