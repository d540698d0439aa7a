"""What a person would look at when a case fails: objects, events and logs of the suite's namespaces."""

from __future__ import annotations

import subprocess

from .kube import Kube

OURS = "beamline.io/e2e=true"
_LOG_LINES = 60
_LONGEST = 60_000


def state(kube: Kube) -> str:
    """Everything as text; what can't be had is said in its place."""
    parts = [_said(kube, "get", "nodes", "-o", "wide")]
    names = _said(kube, "get", "namespaces", "-l", OURS, "-o", "name")
    for line in names.splitlines():
        if not line.startswith("namespace/"):
            continue
        namespace = line.removeprefix("namespace/")
        parts.append(f"\n===== namespace {namespace}")
        shown = "pods,deployments,statefulsets,jobs,services,endpoints,secrets,leases"
        parts.append(_said(kube, "get", shown, "-o", "wide", "-n", namespace))
        parts.append(_said(kube, "get", "ext,rp", "-n", namespace))
        parts.append(_said(kube, "describe", "ext,rp", "-n", namespace)[-8_000:])
        parts.append(
            _said(kube, "get", "events", "--sort-by=.metadata.creationTimestamp", "-n", namespace)[-6_000:]
        )
        for pod in _said(kube, "get", "pods", "-n", namespace, "-o", "name").split():
            if pod.startswith("pod/"):
                parts.append(f"----- logs of {namespace} {pod}")
                tail = ("--all-containers", f"--tail={_LOG_LINES}", "-n", namespace)
                parts.append(_said(kube, "logs", pod, *tail)[-6_000:])
                parts.append(_said(kube, "logs", pod, "--previous", "--tail=10", "-n", namespace)[-1_500:])
    text = "\n".join(parts)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}\n[...]\n{text[-_LONGEST // 2 :]}"


def _said(kube: Kube, *words: str) -> str:
    try:
        done = kube.command("kubectl", *words, timeout_s=20)
    except subprocess.TimeoutExpired:
        return f"kubectl {' '.join(words)} gave no answer"
    return done.stdout if done.returncode == 0 else f"({done.stderr.strip()[:200]})"
