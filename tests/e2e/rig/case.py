"""One case's objects: a namespace of its own, names that no other case has, short ways to write objects."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from .clients import namespace_object
from .install import Installation
from .kube import Kube, Object, condition, is_so, until

API = "beamline.io/v1alpha1"


class Case:
    """What one case makes; :meth:`clean` takes it away again."""

    def __init__(self, kube: Kube, install: Installation, image: str, label: str) -> None:
        self.kube = kube
        self.install = install
        self.image = image
        self.tag = uuid4().hex[:5]
        self.namespace = f"e2e-{label[:30]}-{self.tag}"

    def start(self) -> None:
        self.kube.apply(namespace_object(self.namespace))

    def clean(self) -> None:
        """Takes the objects away as a person would: none may hang. Pods may take their time to end."""
        kinds = "routingpolicies.beamline.io,extensions.beamline.io"
        self.kube.kubectl("delete", kinds, "--all", "-n", self.namespace, "--timeout=60s")
        self.kube.kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")

    def named(self, name: str) -> str:
        """A name that is this case's alone: ids are unique in the registry, whatever the namespace."""
        return f"{name}-{self.tag}"

    def request(self, prompt: str = "hello", *, model: str = "model") -> dict[str, Any]:
        """A request that this case's policy takes."""
        return {"prompt": prompt, "model": self.named(model)}

    def extension(self, name: str, *, run: str = "mock_provider", **spec: Any) -> Object:
        """An Extension, by default a mock provider that answers at once."""
        workload = {
            "image": self.image,
            "command": ["beamline", "extension", "run", run],
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
            **spec.pop("workload", {}),
        }
        defaults: dict[str, Any] = {"type": "provider", "timeoutMs": 5000, "workload": workload}
        if run == "mock_provider":
            defaults["config"] = {"mode": "echo"}
        metadata: dict[str, Any] = {"name": self.named(name), "namespace": self.namespace}
        metadata.update(spec.pop("metadata", {}))
        return {"apiVersion": API, "kind": "Extension", "metadata": metadata, "spec": {**defaults, **spec}}

    def policy(self, *steps: Object, name: str = "model", **spec: Any) -> Object:
        """A RoutingPolicy for the model that has the policy's name."""
        full = self.named(name)
        return {
            "apiVersion": API,
            "kind": "RoutingPolicy",
            "metadata": {"name": full, "namespace": self.namespace},
            "spec": {"match": {"models": [full]}, "deadlineMs": 15000, "steps": list(steps), **spec},
        }

    def provider(self, *names: str) -> Object:
        """The step that asks these providers."""
        refs = [{"extensionRef": {"name": self.named(name)}} for name in names]
        return {"action": "select_provider", "providers": refs}

    def apply(self, *objects: Object) -> None:
        """`kubectl apply`."""
        self.kube.apply(*objects)

    def get(self, name: str, kind: str = "ext") -> Object:
        """One of this case's objects, by the name without the case's tag."""
        found = self.kube.get(kind, self.named(name), self.namespace)
        assert found is not None, f"{kind} {self.named(name)} is gone"
        return found

    def patch(self, name: str, change: Object, kind: str = "ext") -> None:
        """A merge patch of one of this case's objects."""
        words = ["patch", kind, self.named(name), "-n", self.namespace, "--type=merge"]
        self.kube.kubectl(*words, "-p", json.dumps(change))

    def condition(self, name: str, kind: str) -> Object:
        """A condition of one of this case's Extensions."""
        return condition(self.get(name), kind)

    def ready(self, *names: str, timeout_s: float = 120) -> None:
        """Waits until these, or all objects of the namespace, are Ready at their present generation."""

        def unready() -> list[str]:
            found = [
                entry
                for kind in ("ext", "rp")
                for entry in self.kube.items(kind, self.namespace)
                if not names or entry["metadata"]["name"] in map(self.named, names)
            ]
            return [
                f"{entry['metadata']['name']}: {condition(entry, 'Ready').get('message')}"
                for entry in found
                if not is_so(entry, "Ready")
            ] or ([] if found else ["nothing is there"])

        last: list[str] = []

        def settled() -> bool:
            last[:] = unready()
            return not last

        try:
            until("everything is Ready", settled, timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}") from None

    def pods(self, name: str) -> list[Object]:
        """The pods of one of this case's Extensions."""
        return self.kube.pods(self.namespace, f"app.kubernetes.io/instance={self.named(name)}")
