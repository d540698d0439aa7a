"""What happens while ``beamline up`` runs, as lines: edits taken in or refused, routers that serve them,
crashes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .progress import Progress
from .summary import remark_of

if TYPE_CHECKING:
    from beamline_contract.objects import ObjectKey
    from beamline_operator.core.ports import Event
    from beamline_operator.edges.files import Changes, FileStore
    from beamline_operator.edges.manifests import FileFault
    from beamline_sdk.deployment.process import ProcessDeployments, ProcessInfo
    from beamline_sdk.deployment.supervisor import ProcessHealth

_EVENTS: Final = {
    "Adopted": "adopted",
    "BreakerOpened": "breaker",
    "BreakerClosed": "breaker",
    "WorkloadRolledBack": "rolled back",
    "CanaryStep": "canary",
    "CanaryPaused": "canary",
    "CanaryPromoted": "canary",
    "CanaryRolledBack": "canary",
    "CanaryAborted": "canary",
}
"""Events that become a line, and its first word."""


class Follower:
    """Turns what the parts report into lines. Everything is called on the event loop."""

    def __init__(self, progress: Progress, store: FileStore, deployments: ProcessDeployments) -> None:
        self._progress = progress
        self._store = store
        self._deployments = deployments
        self._edited: dict[ObjectKey, tuple[int, float]] = {}
        """Generation that waits for the routers, and when it was seen."""
        self._troubles: dict[ObjectKey, str] = {}
        """Why an object is not ready, as last told."""
        self._faults: set[FileFault] = set()
        self._health: dict[tuple[str, str, int], ProcessHealth] = {}
        self._router: ProcessHealth | None = None

    def loaded(self, changes: Changes) -> None:
        """The files as they were at the start."""
        for line in changes.skipped:
            self._progress.line("skipped", line, "dim")
        self.faults(changes.faults)

    def changes(self, changes: Changes) -> None:
        """The files were edited, or looked at for the first time."""
        for key in changes.changed:
            stored = self._store.get(key)
            if stored is None:
                continue
            generation = stored.metadata.generation
            if self._edited.get(key, (0, 0.0))[0] != generation:
                self._edited[key] = (generation, time.monotonic())
                where = self._store.file_of(key)
                self._progress.line("applied", f"{key}, generation {generation} ({where})")
        for key in changes.removed:
            self._progress.line("removed", str(key), "yellow")
            self._edited.pop(key, None)
            self._troubles.pop(key, None)
        for line in changes.skipped:
            self._progress.line("skipped", line, "dim")
        self.faults(changes.faults)

    def faults(self, faults: tuple[FileFault, ...]) -> None:
        """All that is wrong with the files now."""
        for fault in faults:
            if fault not in self._faults:
                self._progress.line("refused", f"{fault}", "red")
        if set(faults) - self._faults:
            self._progress.line("", "the last good version keeps serving", "dim")
        elif self._faults and not faults:
            self._progress.line("fine", "every file is valid again", "green")
        self._faults = set(faults)

    def status(self, key: ObjectKey, status: Mapping[str, Any]) -> None:
        """The core wrote a status."""
        conditions = {entry["type"]: entry for entry in status.get("conditions", ())}
        programmed = conditions.get("Programmed", {})
        generation, since = self._edited.get(key, (0, 0.0))
        if programmed.get("status") == "True" and programmed.get("observedGeneration") == generation:
            del self._edited[key]
            took = (time.monotonic() - since) * 1000
            routers = status.get("programmed", "1/1")
            self._progress.line("programmed", f"{key}, {routers} routers in {took:.0f} ms", "green")
        ready = conditions.get("Ready", {})
        message = str(ready.get("message", ""))
        if ready.get("status") == "False" and _lasts(str(ready.get("reason"))):
            if self._troubles.get(key) != message:
                self._troubles[key] = message
                self._progress.line("not ready", f"{key}: {message}", "yellow")
        elif ready.get("status") == "True":
            remark = remark_of(ready) and f"{remark_of(ready)}: {message}"
            if remark and self._troubles.get(key) != remark:
                self._troubles[key] = remark
                self._progress.line("ready", f"{key}, but {remark}", "yellow")
            elif not remark and self._troubles.pop(key, None) is not None:
                self._progress.line("ready", str(key), "green")

    def event(self, key: ObjectKey, event: Event) -> None:
        """The core told of a transition. What other lines tell anyway is left out."""
        if word := _EVENTS.get(event.reason.value):
            self._progress.line(
                word, f"{key}: {event.message}", "yellow" if event.type == "Warning" else "green"
            )

    def workload(self, namespace: str, name: str) -> None:
        """A process of an extension changed."""
        for info in self._deployments.processes():
            if (info.namespace, info.name) == (namespace, name):
                self._one(info)

    def router(self, health: ProcessHealth) -> None:
        """The router's process changed."""
        before, self._router = self._router, health
        if before is None or before.state != health.state:
            self._tell("router", before, health)

    def _one(self, info: ProcessInfo) -> None:
        key = (info.namespace, info.name, info.replica)
        before = self._health.get(key)
        self._health[key] = info.health
        if before is None or (before.state, before.starts) != (info.health.state, info.health.starts):
            self._tell(info.name, before, info.health)

    def _tell(self, name: str, before: ProcessHealth | None, health: ProcessHealth) -> None:
        match health.state.value:
            case "backoff":
                self._progress.line("crashed", f"{name} {health.message}; it is started again", "red")
            case "failed" if before is None or before.state != health.state:
                self._progress.line("failed", f"{name}: {health.message}", "red")
            case "ready" if health.starts > 1 and before is not None and before.state != health.state:
                self._progress.line("restarted", f"{name} (process {health.pid})", "green")


def _lasts(reason: str) -> bool:
    """Whether a reason for not being ready is worth a line: those of a change under way are not."""
    return reason not in {
        "WorkloadProgressing",
        "Programming",
        "NotSynced",
        "Reconciling",
        "Observed",
        "Pending",
        "NoRouters",
        "Deleting",
    }
