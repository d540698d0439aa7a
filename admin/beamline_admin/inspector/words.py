"""Small readings that several pages share. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from beamline_registry.port import Health

from ..objects.port import Held
from ..shapes import HealthWord, health_word
from .digest import Digest

Look = Literal["good", "warn", "bad", "info", "off", "wait", "open"]
HEALTH_LOOKS: Final[Mapping[HealthWord, Look]] = {
    "healthy": "good",
    "degraded": "warn",
    "failing": "bad",
    "no_data": "off",
}
BREAKER_LOOKS: Final[Mapping[str, Look]] = {
    "closed": "good",
    "half-open": "warn",
    "open": "bad",
    "isolated": "bad",
}
_ABNORMAL: Final = frozenset({"Reconciling", "Stalled"})


@dataclass(frozen=True, slots=True)
class Badge:
    """A word with a look; ``title`` says more."""

    look: Look
    word: str
    title: str = ""


def health_badge(health: Health | None) -> Badge:
    """Health over the last five minutes."""
    word = health_word(health) if health is not None else "no_data"
    if health is None or health.score is None:
        return Badge("off", "no calls", "nobody called it within the last five minutes")
    calls = health.window_success + health.window_failure
    return Badge(HEALTH_LOOKS[word], f"{word} {health.score:.0f} %", f"{calls} calls in five minutes")


def condition_badge(condition: Mapping[str, Any]) -> Badge:
    """A condition: True is good, except for those that are true when something is not normal."""
    status = str(condition.get("status", "Unknown"))
    if status == "Unknown":
        return Badge("wait", "Unknown")
    good = (status == "True") != (condition.get("type") in _ABNORMAL)
    return Badge("good" if good else "bad" if condition.get("type") != "Reconciling" else "wait", status)


def replicas_of(held: Held | None) -> str:
    """``ready/wanted``; empty where the object has no workload, or is not known."""
    status = held.document.get("status") or {} if held is not None else {}
    if "replicas" not in status:
        return ""
    return f"{status.get('readyReplicas', 0)}/{status['replicas']}"


def seen_history(digest: Digest, whole: bool) -> list[str] | None:
    """The uids whose history is seen, for the query; None is all. Who is bound to tenants sees no history of
    what is gone.
    """
    if whole:
        return None
    policies = (line.record.uid for line in digest.lines.values())
    return [*policies, *(record.uid for record in digest.extensions.values())]
