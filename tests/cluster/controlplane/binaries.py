"""Where a control plane's parts, kubectl, Helm and kubeconform come from: given, cached, or built.

``go.mod`` beside this file, and in the folders below for what needs other versions of the same modules, pins
them. A build takes about six minutes on two cores the first time and seconds after that. Parallel test
workers meet here: a file lock lets one build while the others wait, and each binary appears under its name
only when it is whole (a rename), so that an interrupted build leaves nothing that looks like a binary.

Run as a script it builds what is missing and prints the paths: ``python
tests/cluster/controlplane/binaries.py``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VERSION = "v1.34.2"
MODULES = Path(__file__).resolve().parent
ETCD, APISERVER, CONTROLLERS, KUBECTL = "etcd", "kube-apiserver", "kube-controller-manager", "kubectl"
HELM, KUBECONFORM = "helm", "kubeconform"
NEEDED = (ETCD, APISERVER, CONTROLLERS, KUBECTL)
CHART_TOOLS = (HELM, KUBECONFORM)
HOW_TO_GET_CHART_TOOLS = (
    "no Helm and kubeconform: install Go to have them built (three minutes, once), or set KUBEBUILDER_ASSETS "
    "to a folder with both"
)
HOW_TO_GET_ONE = (
    "no Kubernetes API server: install Go to have one built (six minutes, once), set KUBEBUILDER_ASSETS to a "
    "folder with etcd, kube-apiserver, kube-controller-manager and kubectl, or set KUBECONFIG with a context "
    "named kind-*, k3d-*, minikube or beamline-local (BEAMLINE_TEST_KUBE_CONTEXTS allows others)"
)
_STAMP = (
    f"-s -w -X k8s.io/component-base/version.gitVersion={VERSION} "
    f"-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34 "
    f"-X k8s.io/client-go/pkg/version.gitVersion={VERSION}"
)


_KUBERNETES = "-X helm.sh/helm/v3/pkg/{0}.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/{0}.k8sVersionMinor=34"
_HELM_STAMP = (
    f"-s -w -X helm.sh/helm/v3/internal/version.version=v3.19.0 "
    f"{_KUBERNETES.format('lint/rules')} {_KUBERNETES.format('chartutil')}"
)
_APART = {
    ETCD: ("go.etcd.io/etcd/server/v3", "-s -w"),
    HELM: ("helm.sh/helm/v3/cmd/helm", _HELM_STAMP),
    KUBECONFORM: ("github.com/yannh/kubeconform/cmd/kubeconform", "-s -w"),
}
"""Name to package and linker flags, of what has a go.mod of its own in the folder of its name."""


class NoControlPlaneError(RuntimeError):
    """There is no API server and no way to get one here; the message says how to get one."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where each program is."""

    paths: Mapping[str, str]

    def path(self, name: str) -> str:
        return self.paths[name]


def find_or_build(names: Sequence[str] = NEEDED, how_to_get: str = HOW_TO_GET_ONE) -> Binaries:
    """Each program of ``names`` from ``KUBEBUILDER_ASSETS``, else from the cache, which is filled first.

    envtest's own archives have no kube-controller-manager: that one is then built and the rest is theirs.
    Raises :class:`NoControlPlaneError` where something is missing and can't be built.
    """
    cache = cache_folder()
    places = {name: place for name in names if (place := _place(name, cache))}
    lacking = [name for name in names if name not in places]
    if lacking:
        if shutil.which("go") is None:
            raise NoControlPlaneError(how_to_get)
        cache.mkdir(parents=True, exist_ok=True)
        with file_lock(cache / ".lock"):
            for name in lacking:
                if not _is_program(cache / name):  # asked again: another worker may have built it meanwhile
                    _build(name, cache, how_to_get)
                places[name] = cache
    return Binaries({name: str(place / name) for name, place in places.items()})


def _place(name: str, cache: Path) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    candidates = [Path(assets), cache] if assets else [cache]
    return next((place for place in candidates if _is_program(place / name)), None)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def cache_folder() -> Path:
    """Where builds are kept, by version."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "beamline" / "controlplane" / VERSION


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on ``path``; the kernel releases it if the process dies."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(name: str, folder: Path, how_to_get: str) -> None:
    say(f"building {name} from Go modules (minutes the first time)")
    began = time.monotonic()
    part = folder / f".{name}.part"
    if name in _APART:
        package, stamp = _APART[name]
        where, flags = MODULES / name, ["-ldflags", stamp]
    else:
        where, package = MODULES, f"k8s.io/kubernetes/cmd/{name}"
        flags = ["-tags", "providerless", "-ldflags", _STAMP]
    command = ["go", "build", "-trimpath", *flags, "-o", str(part), package]
    done = subprocess.run(
        command, cwd=where, env=go_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        part.unlink(missing_ok=True)
        raise NoControlPlaneError(f"{name} could not be built: {done.stderr.strip()[-800:]}\n{how_to_get}")
    part.rename(folder / name)
    say(f"built {name} in {time.monotonic() - began:.0f} s")


def go_environment() -> Mapping[str, str]:
    """For the go command: nothing that go.mod does not pin, and no C compiler."""
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def say(line: str) -> None:
    """A progress line, so that a long build does not look like a hang."""
    print(f"[controlplane] {line}", file=sys.__stderr__, flush=True)


if __name__ == "__main__":
    print(*find_or_build().paths.values(), sep="\n")
