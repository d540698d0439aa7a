"""The chart as Helm renders it: text, objects, or a refusal."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "beamline"
BUNDLED: dict[str, Any] = {"bundled": {"enabled": True, "postgres": {"password": "secret1word"}}}
EXISTING: dict[str, Any] = {
    "database": {"existingSecret": "registry"},
    "nats": {"url": "nats://nats.nats.svc:4222"},
}


@dataclass
class Chart:
    """Renders the chart as release ``demo`` in namespace ``models``; the same values are rendered once."""

    helm: str
    _known: dict[str, str] = field(default_factory=dict)

    def text(self, values: dict[str, Any], *arguments: str) -> str:
        """The manifests as Helm prints them."""
        key = json.dumps([values, arguments])
        if key not in self._known:
            done = self.run(values, *arguments)
            assert done.returncode == 0, done.stderr
            self._known[key] = done.stdout
        return self._known[key]

    def render(self, values: dict[str, Any], *arguments: str) -> Rendered:
        """The objects."""
        documents = yaml.load_all(self.text(values, *arguments), Loader=yaml.CSafeLoader)
        return Rendered([found for found in documents if found])

    def refusal(self, values: dict[str, Any]) -> str:
        """What Helm says to values that it must refuse."""
        done = self.run(values)
        assert done.returncode != 0, "these values were accepted"
        return done.stderr

    def run(self, values: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.helm, "template", "demo", str(CHART), "--namespace", "models", "--values", "-"]
        return subprocess.run(
            [*command, "--kube-version", "1.34.2", *arguments],
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
        )


@dataclass(frozen=True)
class Rendered:
    """The objects of one rendering."""

    objects: list[dict[str, Any]]

    def names(self, kind: str) -> list[str]:
        return sorted(found["metadata"]["name"] for found in self.objects if found["kind"] == kind)

    def one(self, kind: str, name: str) -> dict[str, Any]:
        """The object of this kind and name."""
        (found,) = (
            entry for entry in self.objects if entry["kind"] == kind and entry["metadata"]["name"] == name
        )
        return found

    def pod(self, name: str) -> dict[str, Any]:
        """The pod spec of the Deployment, StatefulSet or Job whose name starts with ``name``."""
        (found,) = (spec for owner, spec in self.pods() if owner.startswith(name))
        return found

    def env(self, pod: str, name: str) -> Any:
        """A variable of a pod's first container: its value, or the Secret's name and key."""
        (variable,) = (entry for entry in self.pod(pod)["containers"][0]["env"] if entry["name"] == name)
        return variable.get("value") or variable["valueFrom"]["secretKeyRef"]

    def pods(self) -> list[tuple[str, dict[str, Any]]]:
        """(name of the owner, or of the pod itself, and pod spec) of everything that runs."""
        of_owners = [
            (found["metadata"]["name"], found["spec"]["template"]["spec"])
            for found in self.objects
            if found["kind"] in {"Deployment", "StatefulSet", "Job"}
        ]
        bare = [
            (found["metadata"]["name"], found["spec"]) for found in self.objects if found["kind"] == "Pod"
        ]
        return of_owners + bare


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them: maps by key, everything else replaced."""
    result: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = merged(result[name], value) if both else value
    return result
