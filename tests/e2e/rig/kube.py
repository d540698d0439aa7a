"""The cluster, by kubectl: what a person would type, with the answer as objects."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Object = dict[str, Any]
_EVERY_S = 0.5


class CommandError(AssertionError):
    """A command that had to succeed did not; the message holds what it said."""


class Kube:
    """One cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def command(
        self, *words: str, stdin: str | None = None, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Runs any command against this cluster, whatever comes of it."""
        return subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=self.environment,
        )

    def must(self, *words: str, stdin: str | None = None, timeout_s: float = 300) -> str:
        """The same where it has to succeed; returns its output."""
        done = self.command(*words, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            said = f"{done.stderr}{done.stdout}".strip()
            raise CommandError(f"{' '.join(words)} ended with {done.returncode}: {said[-2000:]}")
        return done.stdout

    def kubectl(self, *words: str, stdin: str | None = None, timeout_s: float = 300) -> str:
        """kubectl, which has to succeed."""
        return self.must("kubectl", *words, stdin=stdin, timeout_s=timeout_s)

    def apply(self, *objects: Object) -> None:
        """`kubectl apply` of objects that name their namespaces."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", stdin=text)

    def items(self, kind: str, namespace: str = "", selector: str = "") -> list[Object]:
        """Every object of a kind; none where the kind is unknown."""
        where = ["--namespace", namespace] if namespace else ["--all-namespaces"]
        words = ["kubectl", "get", kind, *where, "-o", "json", *(["-l", selector] if selector else [])]
        done = self.command(*words)
        if "the server doesn't have a resource type" in done.stderr:
            return []
        if done.returncode != 0:
            raise CommandError(f"{' '.join(words)}: {done.stderr}")
        return list(json.loads(done.stdout)["items"])

    def get(self, kind: str, name: str, namespace: str) -> Object | None:
        """One object, or None."""
        done = self.command("kubectl", "get", kind, name, "--namespace", namespace, "-o", "json")
        if done.returncode != 0:
            if "NotFound" in done.stderr or "not found" in done.stderr:
                return None
            raise CommandError(done.stderr)
        found: Object = json.loads(done.stdout)
        return found

    def pods(self, namespace: str, selector: str) -> list[Object]:
        """Pods that are not on their way out."""
        return [
            pod
            for pod in self.items("pods", namespace, selector)
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def wait_for(self, condition: str, what: str, namespace: str, timeout_s: float = 120) -> None:
        """`kubectl wait`: ``what`` is kind/name, or a kind with --all."""
        words = ["wait", f"--for={condition}", *what.split(), "--namespace", namespace]
        self.kubectl(*words, f"--timeout={timeout_s:g}s", timeout_s=timeout_s + 30)

    def rolled_out(self, what: str, namespace: str, timeout_s: float = 180) -> None:
        """`kubectl rollout status`."""
        words = ["rollout", "status", what, "--namespace", namespace, f"--timeout={timeout_s:g}s"]
        self.kubectl(*words, timeout_s=timeout_s + 30)


def until(claim: str, probe: Callable[[], T], *, timeout_s: float = 90) -> T:
    """Asks again and again until the answer is true; returns it. Raises AssertionError with the claim and the
    last answer.
    """
    end = time.monotonic() + timeout_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"after {timeout_s:g} s it is still not so that {claim}; last: {answer!r}")
        time.sleep(_EVERY_S)


def condition(found: Object | None, kind: str) -> Object:
    """The condition of this type, or an empty one."""
    listed = ((found or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in listed if entry["type"] == kind), {})


def is_so(found: Object | None, kind: str) -> bool:
    """Whether the condition is True for the object's present generation."""
    entry = condition(found, kind)
    generation = ((found or {}).get("metadata") or {}).get("generation")
    return entry.get("status") == "True" and entry.get("observedGeneration") == generation
