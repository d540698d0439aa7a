"""The deployments port: run an extension somewhere, and say how it is.

One port, two adapters: Kubernetes (:mod:`.kubernetes`, server-side apply of a Deployment with what belongs
to it) and the local process (:mod:`.process`, a supervised child). The reconcile core uses it for the
workloads of Extensions; both adapters pass ``tests/contract/test_deployments.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from beamline_contract.workload import Workload


@dataclass(frozen=True, slots=True)
class DeploymentRequest:
    """What shall run. ``env`` is what Beamline adds (contract.md, "What a workload gets"); ``workload.env``
    is the author's.

    ``hash`` identifies this desired state: an adapter that already runs it does nothing. ``replicas``
    overrides the workload's (0 when the extension is disabled).
    """

    namespace: str
    name: str
    owner_uid: str
    generation: int
    workload: Workload
    replicas: int
    env: Mapping[str, str]
    hash: str
    labels: Mapping[str, str] = field(default_factory=dict)
    inputs: str = ""
    """Identifies the versions of the Secrets and ConfigMaps that the workload reads; a change rolls it."""


class Phase(StrEnum):
    """How a workload is."""

    ABSENT = "absent"
    PROGRESSING = "progressing"
    READY = "ready"
    FAILED = "failed"
    SCALED_TO_ZERO = "scaled-to-zero"
    NOT_RUNNABLE = "not-runnable"
    """This world can't run it, such as an image without a command on a laptop."""
    CREDENTIALS_MISSING = "credentials-missing"


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """What an adapter observes. ``message`` is a sentence for people; ``hash`` is of the state it speaks
    of.
    """

    phase: Phase
    replicas: int = 0
    ready_replicas: int = 0
    message: str = ""
    hash: str = ""
    selector: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    retained: bool = False
    """It is there without an owner, on purpose."""


@dataclass(frozen=True, slots=True)
class Found:
    """A workload that an adapter finds in its world. ``owned``: an Extension's, which takes it along when it
    goes. ``retained``: left without an owner on purpose.
    """

    namespace: str
    name: str
    owned: bool = False
    retained: bool = False


class DeploymentError(Exception):
    """The world refused or does not answer; ``retryable`` says whether the same call may succeed later.

    ``conflict``: something that somebody else made stands where the workload should.
    """

    def __init__(self, message: str, *, retryable: bool = True, conflict: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.conflict = conflict


class Deployments(Protocol):
    """Apply is idempotent and returns at once; ``get_status`` says how far it got. Both raise
    :class:`DeploymentError`.
    """

    async def deploy(self, request: DeploymentRequest) -> None:
        """Makes the world run ``request``; the same hash again changes nothing."""
        ...

    async def get_status(
        self, namespace: str, name: str, desired: DeploymentRequest | None = None
    ) -> DeploymentStatus:
        """How the workload is; phase ABSENT when there is none.

        With ``desired`` an adapter may look whether what it applied for it still stands, and report no hash
        where others changed it.
        """
        ...

    async def delete(self, namespace: str, name: str) -> None:
        """Removes the workload and all that belongs to it; absent is fine."""
        ...

    async def release(self, namespace: str, name: str) -> None:
        """Leaves the workload as it runs, and says that nobody owns it, on purpose; absent is fine."""
        ...

    def workloads(self) -> Collection[Found]:
        """Every workload that this adapter made and knows of, also those of which only a part is left."""
        ...
