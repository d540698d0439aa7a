"""An installation of the chart, as Helm makes it, upgrades it and takes it away."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .clients import MIXED, Clients, Load, namespace_object
from .kube import CommandError, Kube, until
from .settings import CHART, Settings, named

RELEASE = "beamline"
CRDS = ("extensions.beamline.io", "routingpolicies.beamline.io")
TENANT = "e2e"
Values = dict[str, Any]


def values_of(settings: Settings, *layers: Values) -> Values:
    """What every installation of the suite sets: the image under test, bundled parts, small requests."""
    images: Values = {}
    for part, image in (("nats", settings.nats_image), ("postgres", settings.postgres_image)):
        if image:
            images[part] = {"image": image}
    small = {"requests": {"cpu": "50m", "memory": "96Mi"}}
    values: Values = {
        "image": named(settings.image),
        "bundled": {"enabled": True, **images},
        "router": {"resources": small},
        "operator": {"resources": small},
    }
    for layer in layers:
        values = merged(values, layer)
    return values


def merged(base: Values, over: Values) -> Values:
    """Values as Helm merges them."""
    both = {key: merged(base[key], over[key]) for key in over if isinstance(base.get(key), dict)}
    return {**base, **over, **both}


@dataclass
class Installation:
    """One release in one namespace."""

    kube: Kube
    clients: Clients
    namespace: str
    release: str = RELEASE
    key: str = ""

    @property
    def url(self) -> str:
        """The routers' Service."""
        return f"http://{self.name}-router.{self.namespace}.svc:8080"

    @property
    def nats_url(self) -> str:
        """The bundled NATS' Service."""
        return f"nats://{self.name}-nats.{self.namespace}.svc:4222"

    @property
    def name(self) -> str:
        """Prefix of the names of the release's objects."""
        return self.release if "beamline" in self.release else f"{self.release}-beamline"

    def install(self, values: Values, *, chart: str = str(CHART), timeout_s: int = 240) -> str:
        """Installs or upgrades, waiting for readiness; returns the notes."""
        words = ["helm", "upgrade", "--install", self.release, chart, "--namespace", self.namespace]
        words += ["--values", "-", "--wait", "--timeout", f"{timeout_s}s"]
        return self.kube.must(*words, stdin=json.dumps(values), timeout_s=timeout_s + 60)

    def make_namespace(self) -> None:
        """The namespace, under Pod Security "restricted"."""
        self.kube.apply(namespace_object(self.namespace))

    def make_key(self) -> None:
        """A Secret ``router-keys`` with one API key, which the clients of this installation send."""
        command = [sys.executable, "-m", "beamline_cli", "keys", "new", "--tenant", TENANT, "-o", "json"]
        made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        self.key = made["key"]
        entry = json.dumps({"keys": [made["entry"]]})
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "router-keys", "namespace": self.namespace},
                "stringData": {"keys.yaml": entry},
            }
        )

    def uninstall(self) -> str:
        """`helm uninstall`, waiting until what it deletes is gone."""
        words = ["helm", "uninstall", self.release, "--namespace", self.namespace, "--wait"]
        return self.kube.must(*words, "--timeout", "180s", timeout_s=240)

    def remove(self) -> None:
        """The release, if it is there, and the namespace."""
        listed = json.loads(self.kube.must("helm", "list", "--all", "-n", self.namespace, "-o", "json"))
        if any(entry["name"] == self.release for entry in listed):
            try:
                self.uninstall()
            except CommandError:  # the hook needs a cluster that works; what follows frees the objects
                words = ["helm", "uninstall", self.release, "-n", self.namespace, "--no-hooks", "--wait"]
                self.kube.must(*words, "--timeout", "120s")
        self.kube.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=120s")

    def ask(self, request: dict[str, Any], *, door: str = "http") -> tuple[int, Any]:
        """One request through the routers' Service, or over NATS."""
        if door == "nats":
            return self.clients.ask(self.nats_url, request, door="nats")
        return self.clients.ask(f"{self.url}/v1/route", request, key=self.key)

    def answer(self, request: dict[str, Any], *, door: str = "http") -> dict[str, Any]:
        """The same, where it must be answered."""
        status, body = self.ask(request, door=door)
        assert status == 200, f"{status}: {body}"
        found: dict[str, Any] = body
        return found

    @contextmanager
    def load(
        self, request: dict[str, Any], *, workers: dict[str, int] | None = None, pause_s: float = 0.1
    ) -> Iterator[Load]:
        """A load on all doors until the block ends."""
        with self.clients.load(
            http=f"{self.url}/v1/route",
            nats=self.nats_url,
            key=self.key,
            request=request,
            workers=MIXED if workers is None else workers,
            pause_s=pause_s,
        ) as load:
            yield load

    def component(self, component: str) -> str:
        """Selector of a component's pods."""
        return f"app.kubernetes.io/instance={self.release},app.kubernetes.io/component={component}"

    def leader(self) -> str:
        """Name of the operator's pod that holds the Lease."""

        def holder() -> str:
            lease = self.kube.get("lease", f"{self.name}-operator", self.namespace)
            identity = ((lease or {}).get("spec") or {}).get("holderIdentity") or ""
            names = [
                pod["metadata"]["name"] for pod in self.kube.pods(self.namespace, self.component("operator"))
            ]
            return next((name for name in names if re.search(re.escape(name), identity)), "")

        return until("one operator holds the Lease", holder)
