"""What a router explains of a request, as rows of a table. Pure; what a router leaves out is empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

ON_FAILURE: Final = {
    "open": "the step is skipped",
    "closed": "the request fails",
    "fallback": "the one below is asked",
}
IN_SHADOW: Final = "it is recorded, and nothing else"


@dataclass(frozen=True, slots=True)
class Call:
    """One extension that a step calls, or may call. ``note`` says when: a share, ``fallback``, ``first``."""

    step: str
    kind: str
    """What sets the step apart: ``shadow``, its group."""
    extension: str
    note: str
    absent: str
    """Why it can't be called; empty where it can."""
    breaker: str
    timeout_ms: float | None
    retry: int | None
    on_failure: str


@dataclass(frozen=True, slots=True)
class Explained:
    """The way of a request through one router now. ``policy`` empty: none matches."""

    instance: str
    error: str
    revision: int | None = None
    policy: str = ""
    because: str = ""
    deadline_ms: float | None = None
    hints: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    others_total: int = 0
    percent_key: str = ""
    """What decided whether the policy's percentage takes the request; empty where it takes all."""

    def agrees_with(self, other: Explained) -> bool:
        """Whether both send the request the same way."""
        ways = [[(call.step, call.extension, call.note) for call in one.calls] for one in (self, other)]
        return (self.error, self.policy) == (other.error, other.policy) and ways[0] == ways[1]


def explained_of(answer: Mapping[str, Any]) -> Explained:
    """One router's answer to ``explain``."""
    instance, result = str(answer.get("instance", "")), answer.get("result")
    if not isinstance(result, Mapping):
        error = answer.get("error") or {}
        return Explained(instance, str(error.get("message") or error.get("code") or "it gave no answer"))
    policy = result.get("policy") or {}
    return Explained(
        instance,
        "",
        result.get("revision"),
        str(policy.get("id", "")),
        str(policy.get("because", "")),
        result.get("deadline_ms"),
        tuple(map(str, policy.get("hints") or ())),
        tuple(_calls(result.get("steps") or ())),
        tuple((str(one.get("policy")), str(one.get("because"))) for one in result.get("others") or ()),
        int(result.get("others_total") or 0),
        str(policy.get("percent_key") or ""),
    )


def _calls(steps: Sequence[Mapping[str, Any]]) -> Iterator[Call]:
    for step in steps:
        if "providers" not in step:
            mode = str(step.get("failure_mode", ""))
            after = IN_SHADOW if step.get("mode") == "shadow" else ON_FAILURE.get(mode, mode)
            yield _call(step, step, "", after)
            if instead := step.get("fallback"):
                yield _call(step, instead, "instead of it", "")
            continue
        first, after = step.get("first"), "the next provider" if step.get("fallback") else "the request fails"
        canary = step.get("canary")
        if isinstance(canary, Mapping):
            chance = f"canary, {canary.get('percent', 0)} % of the requests"
            yield _call(
                step,
                canary,
                f"first, {chance}" if canary.get("asked") is True else chance,
                "the choice below",
            )
        for choice in step["providers"]:
            yield _call(step, choice, _chance(choice, first), after)
        for choice in step.get("fallback") or ():
            yield _call(step, choice, "fallback", "the next one, or the request fails")


def _call(step: Mapping[str, Any], call: Mapping[str, Any], note: str, on_failure: str) -> Call:
    kinds = (
        "shadow" if step.get("mode") == "shadow" else "",
        f"group {step['group']}" if step.get("group") else "",
    )
    return Call(
        str(step.get("step", "")),
        ", ".join(filter(None, kinds)),
        str(call.get("extension_id", "")),
        note,
        str(call.get("absent") or ""),
        str((call.get("live") or {}).get("breaker") or ""),
        call.get("timeout_ms"),
        call.get("retry"),
        on_failure,
    )


def _chance(choice: Mapping[str, Any], first: Any) -> str:
    share = choice.get("share")
    words = ["first"] if first is not None and first == choice.get("extension_id") else []
    if isinstance(share, int | float):
        words.append(f"{100 * share:.1f} % of the requests".replace(".0 %", " %"))
    return ", ".join(words)
