"""How a Deployment is, in words: pure functions over what the API server says.

Kubernetes' own messages carry counters and pod names that change all the time; the sentences here change only
when the situation does, because each change is a write to the Extension's status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .credentials import missing_input
from .mounts import missing_files, waits_for_files
from .port import DeploymentStatus, Phase
from .readiness import worded

_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_CONFIG: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_CRASH: Final = "CrashLoopBackOff"
CRASHES: Final = 3
"""Restarts after which a container that is not ready counts as one that exits again and again, also while it
runs for a moment: or the verdict would change with every restart.
"""
MAX_DETAIL: Final = 300


def conditions_of(deployment: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Conditions by type."""
    return {str(item.get("type")): item for item in deployment.get("status", {}).get("conditions") or ()}


def settled(deployment: Mapping[str, Any]) -> bool:
    """Whether every wanted replica runs the newest revision and is available."""
    status = deployment.get("status", {})
    wanted = deployment.get("spec", {}).get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        and status.get("replicas", 0) == wanted
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )


def phase_of(
    deployment: Mapping[str, Any],
    pods: Iterable[Mapping[str, Any]],
    events: Iterable[Mapping[str, Any]] = (),
    said: str = "",
) -> tuple[Phase, str]:
    """The phase, and a sentence where there is something to say. ``pods``, and what was told of them, are
    looked at only while not settled; ``said`` is why one of them is not ready, in its own words.
    """
    wanted = deployment.get("spec", {}).get("replicas", 1)
    if settled(deployment):
        return (Phase.READY, "") if wanted else (Phase.SCALED_TO_ZERO, "")
    if not wanted:
        return Phase.PROGRESSING, "The last replicas are stopping."
    if deployment.get("status", {}).get("observedGeneration", 0) < deployment["metadata"].get(
        "generation", 0
    ):
        return Phase.PROGRESSING, ""  # what stands there speaks of an earlier spec
    conditions = conditions_of(deployment)
    failure = conditions.get("ReplicaFailure", {})
    if failure.get("status") == "True":
        return Phase.FAILED, f"Pods can't be created: {str(failure.get('message', ''))[:MAX_DETAIL]}"
    phase, fatal, waiting = trouble(pods, events)
    if fatal:
        return phase, fatal
    phase, said = worded(said)
    unready = f"A pod is not ready: {said.rstrip('.')}." if said else ""
    if phase is Phase.CREDENTIALS_MISSING:
        return phase, unready
    if conditions.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded":
        seconds = deployment.get("spec", {}).get("progressDeadlineSeconds", 600)
        why = (
            waiting
            or unready
            or (
                "The new pods do not become ready; see their readiness probe and their logs, or "
                "`kubectl describe` of the Deployment."
            )
        )
        return (
            Phase.FAILED,
            f"The rollout made no progress within {seconds} s (progressDeadlineSeconds). {why}",
        )
    return Phase.PROGRESSING, waiting


def status_of(
    deployment: Mapping[str, Any],
    pods: Iterable[Mapping[str, Any]],
    hash_annotation: str,
    events: Iterable[Mapping[str, Any]] = (),
    said: str = "",
) -> DeploymentStatus:
    """The port's status of a Deployment that exists; ``events`` and ``said`` as in :func:`phase_of`."""
    phase, message = phase_of(deployment, pods, events, said)
    status = deployment.get("status", {})
    labels = deployment.get("spec", {}).get("selector", {}).get("matchLabels", {})
    return DeploymentStatus(
        phase=phase,
        replicas=status.get("replicas", 0),
        ready_replicas=status.get("readyReplicas", 0),
        message=message,
        hash=str(deployment["metadata"].get("annotations", {}).get(hash_annotation, "")),
        selector=",".join(f"{name}={value}" for name, value in sorted(labels.items())),
    )


def trouble(
    pods: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]] = ()
) -> tuple[Phase, str, str]:
    """(phase, what keeps pods from ever becoming ready, what they wait for), each a sentence or empty."""
    waiting = ""
    told = list(events)
    for pod in pods:
        if pod.get("metadata", {}).get("deletionTimestamp"):
            continue
        status = pod.get("status", {})
        for container in status.get("containerStatuses") or ():
            fatal = _fatal(container)
            if fatal:
                return _worded(container, fatal, pod)
        if waits_for_files(pod) and (missing := missing_files(told, pod)) is not None:
            return _lacking(missing[0]), missing[1], ""
        for condition in status.get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
                waiting = "No node can take a pod: " + str(condition.get("message", ""))[:MAX_DETAIL]
    return Phase.PROGRESSING, "", waiting


def _worded(container: Mapping[str, Any], fatal: str, pod: Mapping[str, Any]) -> tuple[Phase, str, str]:
    """A Secret or ConfigMap that is missing is named with what is asked of it."""
    waiting = container.get("state", {}).get("waiting") or {}
    missing = (
        missing_input(str(waiting.get("message", "")), pod)
        if waiting.get("reason") == "CreateContainerConfigError"
        else None
    )
    if missing is None:
        return Phase.FAILED, fatal, ""
    kind, remedy = missing
    return _lacking(kind), f"{fatal.rstrip('.')}. {remedy}", ""


def _lacking(kind: str) -> Phase:
    return Phase.CREDENTIALS_MISSING if kind == "Secret" else Phase.FAILED


def _fatal(container: Mapping[str, Any]) -> str:
    waiting = container.get("state", {}).get("waiting") or {}
    reason = str(waiting.get("reason", ""))
    if reason in _IMAGE:
        return f"The image {container.get('image', '')} can't be pulled: check its name and imagePullSecrets."
    if reason in _CONFIG:
        return f"The container can't be started: {str(waiting.get('message', reason))[:MAX_DETAIL]}"
    if reason == _CRASH or (container.get("restartCount", 0) >= CRASHES and not container.get("ready")):
        last = container.get("lastState", {}).get("terminated") or {}
        if last.get("reason") == "OOMKilled":
            return (
                "The container is killed again and again because it needs more memory than "
                "resources.limits.memory; raise that."
            )
        said = str(last.get("message") or last.get("reason") or "").strip()[-MAX_DETAIL:]
        code = last.get("exitCode")
        return (
            f"The container exits again and again (code {code}){': ' + said if said else ''}. See its logs."
        )
    return ""
