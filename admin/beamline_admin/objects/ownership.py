"""Which GitOps tool owns an object, by the marks that the tools leave: it undoes what others change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_MANAGERS: Final = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux (kustomize-controller)",
    "helm-controller": "Flux (helm-controller)",
}


def owner_of(metadata: Mapping[str, Any]) -> str | None:
    """The owner in words, such as ``Argo CD application shop``; None where no tool claims the object."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if tracking := annotations.get("argocd.argoproj.io/tracking-id"):
        return f"Argo CD application {str(tracking).partition(':')[0]}"
    if instance := labels.get("argocd.argoproj.io/instance"):
        return f"Argo CD application {instance}"
    for tool, kind in (("kustomize", "Kustomization"), ("helm", "HelmRelease")):
        if name := labels.get(f"{tool}.toolkit.fluxcd.io/name"):
            namespace = labels.get(f"{tool}.toolkit.fluxcd.io/namespace", "")
            return f"Flux {kind} {namespace}/{name}"
    for entry in metadata.get("managedFields") or ():
        if entry.get("manager") in _MANAGERS and not entry.get("subresource"):
            return _MANAGERS[entry["manager"]]
    return None
