"""What a decision asks for. A plan is data: the reconciler carries it out and decides again with what came of
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beamline_registry.port import Note, Write
from beamline_sdk.deployment.port import DeploymentRequest

from .ports import Event


@dataclass(frozen=True, slots=True)
class Plan:
    """At most one step of work, in the order of the fields, and the status as it stands before it.

    ``note`` is written first, by itself. ``writes`` go into one transaction, in order. ``finalizer`` is True
    to put ours on, False to take it off, None to leave it. ``requeue`` is the number of seconds until the
    object wants to be looked at again whatever happens; None waits for the next event. ``failed`` says that
    something did not answer, and is a reason to come back with a growing delay.
    """

    status: Mapping[str, Any]
    finalizer: bool | None = None
    note: Note | None = None
    writes: tuple[Write, ...] = ()
    deploy: DeploymentRequest | None = None
    adopts: bool = False
    """``deploy`` takes over what an earlier object of this name left behind on purpose."""
    undeploy: bool = False
    release: bool = False
    """The workload outlives its object: it is left as it runs, without an owner."""
    events: tuple[Event, ...] = field(default=())
    requeue: float | None = None
    failed: str | None = None
    wait: float = 0.0
    """Seconds for which the status is not worth a write yet: the routers' reports are on their way."""
    remember: Mapping[str, Any] = field(default_factory=dict)
    """Fields of status that must be written before the work begins: a kill in between must not undo it."""

    @property
    def only_finalizer(self) -> bool:
        """Whether putting ours on is all that there is to do."""
        return (
            self.finalizer is True
            and not self.writes
            and self.deploy is None
            and not self.undeploy
            and not self.release
            and not self.remember
        )

    @property
    def idle(self) -> bool:
        """Nothing to do but to say how things are."""
        return (
            self.finalizer is None
            and self.note is None
            and not self.writes
            and self.deploy is None
            and not self.undeploy
            and not self.release
        )
