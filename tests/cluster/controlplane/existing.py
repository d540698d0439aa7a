"""A cluster that the person running the tests already has, used only if its context is on the allow list.

The list keeps a test run away from a cluster that matters: only the names that kind, k3d and minikube give,
our own throw-away ones, and what ``BEAMLINE_TEST_KUBE_CONTEXTS`` adds (comma-separated, with ``*``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

from .binaries import KUBECTL, cache_folder, say
from .client import Cluster

_ALLOWED = ("kind-*", "k3d-*", "minikube", "beamline-local")


def existing_cluster() -> Cluster | None:
    """The cluster of ``KUBECONFIG`` if its current context is allowed, else None and a line that says why."""
    named = os.environ.get("KUBECONFIG")
    kubectl = shutil.which(KUBECTL) or shutil.which(KUBECTL, path=str(cache_folder()))
    if not named or kubectl is None:
        return None
    asked = subprocess.run(
        [kubectl, f"--kubeconfig={named}", "config", "current-context"],
        capture_output=True,
        text=True,
        check=False,
    )
    context = asked.stdout.strip()
    if not is_allowed(context, os.environ.get("BEAMLINE_TEST_KUBE_CONTEXTS", "")):
        say(f"KUBECONFIG has the context {context!r}, which is not on the allow list: not used")
        return None
    return Cluster(Path(named), kubectl)


def is_allowed(context: str, also: str = "") -> bool:
    """Whether tests may write to the cluster that goes by ``context``; ``also`` extends the list."""
    patterns = (*_ALLOWED, *(pattern.strip() for pattern in also.split(",") if pattern.strip()))
    return any(fnmatchcase(context, pattern) for pattern in patterns)
