"""A policy in words that can be compared: what ``beamline explain`` says of it, without what depends on a
request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from beamline_router.core.explain import explain
from beamline_router.core.request import Request
from beamline_router.core.snapshot import Snapshot

_PER_REQUEST: Final = frozenset({"first", "key", "asked", "version", "version_key", "score"})
_ABSENT: Final = "(none)"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different. ``before`` or ``after`` None: it was, or will be, not there."""

    at: str
    before: Any
    after: Any


def told(snapshot: Snapshot, policy_id: str) -> dict[str, Any]:
    """The policy of that id: match, priority, deadline, and its steps with effective settings."""
    compiled = snapshot.compiled_policies[policy_id]
    request = Request(request_id="diff", tenant_id="diff", deadline=None, prompt="", policy=policy_id)
    explained = explain(request, snapshot)
    criteria = asdict(compiled.criteria)
    return {
        "match": {
            "tenants": sorted(criteria["tenants"]),
            "environments": sorted(criteria["environments"]),
            "models": list(criteria["models"]),
            "headers": dict(criteria["headers"]),
            "percent": criteria["percent"],
            "sticky_key": criteria["sticky_key"],
        },
        "priority": compiled.priority,
        "deadline_ms": explained["deadline_ms"],
        "retry_budget": compiled.record.policy.get("retry_budget"),
        "steps": [_without(step) for step in explained["steps"]],
    }


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What is different between two policies as :func:`told` tells them."""
    found = [
        change
        for name in ("match", "priority", "deadline_ms", "retry_budget")
        for change in differences(name, before[name], after[name])
    ]
    return [*found, *_steps(before["steps"], after["steps"])]


def differences(at: str, before: Any, after: Any) -> Iterator[Change]:
    """What is different below ``at``, down to single values; lists are compared as wholes."""
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted({*before, *after}):
            yield from differences(f"{at}.{name}", before.get(name), after.get(name))
    else:
        yield Change(at, before, after)


def _steps(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    old, new = [_name(step) for step in before], [_name(step) for step in after]
    for kind, at, until, there, to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            for one, other in zip(before[at:until], after[there:to], strict=True):
                yield from _step(one, other)
            continue
        for step in before[at:until]:
            moved = _name(step) in new
            yield Change(
                f"step {_name(step)}", "there" if not moved else "here", "elsewhere" if moved else None
            )
        for step in after[there:to]:
            if _name(step) not in old:
                yield Change(f"step {_name(step)}", None, "there")
            else:
                yield from _step(next(one for one in before if _name(one) == _name(step)), step)


def _step(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    at = f"step {_name(after)}"
    plain = ({**before}, {**after})
    if after["action"] == "select_provider":
        for what in ("providers", "fallback"):
            old, new = (_by_id(step.pop(what, ())) for step in plain)
            if what == "fallback" and list(old) != list(new):
                yield Change(f"{at}: fallback", list(old) or None, list(new) or None)
            for name in sorted({*old, *new}):
                if what == "providers" and (name in old) != (name in new):
                    yield Change(f"{at}: provider {name}", _share(old.get(name)), _share(new.get(name)))
                elif name in old and name in new:
                    word = "provider" if what == "providers" else "fallback"
                    yield from _call(f"{at}: {word} {name}", old[name], new[name])
    for change in _call("", plain[0], plain[1]):
        yield Change(f"{at}: {change.at.lstrip('.')}" if change.at else at, change.before, change.after)


def _call(at: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """The settings of a call; of one that gets lost, or found, only that."""
    if ("absent" in before) != ("absent" in after):
        yield Change(at, before.get("absent", "served"), after.get("absent", "served"))
    else:
        yield from differences(at, before, after)


def _name(step: Mapping[str, Any]) -> str:
    """What tells a step from the others of its policy."""
    if step["action"] == "select_provider":
        return "select_provider"
    return f"{str(step['action']).removeprefix('extension_')} {step['extension_id']}"


def _by_id(calls: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(call["extension_id"]): call for call in calls}


def _share(call: Mapping[str, Any] | None) -> str | None:
    if call is None:
        return None
    share = call.get("share")
    return f"weight {call['weight']}" + ("" if share is None else f", {share:.0%} of the requests")


def _without(node: Any) -> Any:
    """``node`` without what depends on a request, and versions by their names."""
    if isinstance(node, Mapping):
        kept = {name: _without(value) for name, value in node.items() if name not in _PER_REQUEST}
        if "step" in kept and "action" in kept:
            del kept["step"]
        if "versions" in node:
            kept["versions"] = {one.get("version") or _ABSENT: _without(one) for one in node["versions"]}
        kept.pop("from", None)
        return kept
    return [_without(one) for one in node] if isinstance(node, list) else node
