"""What is wrong with an object before it is written: the rules that the reconcile core decides by.

A fault keeps the generation out of the registry, so it is refused here. A warning is a reference that leads
nowhere yet: such an object is served, and its step fails by its ``failureMode``. What only the operator knows
(images that its configuration allows, rows of objects that are gone) shows in the object's conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamline_contract.conditions import Reason
from beamline_contract.model import Fault, InvalidObjectError
from beamline_contract.names import API_VERSION
from beamline_contract.objects import BeamlineObject, BrokenObject, ObjectKey, parse_object
from beamline_contract.references import gravest, references_of, rivals
from beamline_registry.canonical import NotStorableError, stored_form

from .port import Held


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checks found. ``object`` is None where the spec breaks its own rules."""

    object: BeamlineObject | None
    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()


def check(
    key: ObjectKey, spec: Mapping[str, Any], held: Held | None, others: Mapping[ObjectKey, Held]
) -> Verdict:
    """The verdict on ``spec`` as that of ``key`` among ``others``."""
    server_side = (
        {name: held.metadata[name] for name in ("uid", "creationTimestamp") if name in held.metadata}
        if held
        else {}
    )
    document = {
        "apiVersion": API_VERSION,
        "kind": key.kind,
        "metadata": {"name": key.name, "namespace": key.namespace, **server_side},
        "spec": spec,
    }
    before = held.parsed() if held is not None else None
    try:
        parsed = parse_object(document, old=None if isinstance(before, BrokenObject) else before)
        stored_form(dict(spec))
    except InvalidObjectError as error:
        return Verdict(None, error.faults)
    except NotStorableError as error:
        return Verdict(None, (Fault("spec", str(error)),))
    everything = {other: found.parsed() for other, found in others.items()} | {key: parsed}
    rival = rivals(everything).get(key)
    if rival is not None:
        path = "metadata.name" if rival.claim == "id" else "spec.subject"
        return Verdict(parsed, (Fault(path, f"the {rival.claim} {rival.value} belongs to {rival.key}"),))
    found = gravest(key.namespace, references_of(parsed, everything))
    if found is None:
        return Verdict(parsed)
    reason, sentences = found
    said = tuple(Fault(path, sentence) for path, sentence in sentences)
    return Verdict(parsed, said) if reason is Reason.REF_WRONG_TYPE else Verdict(parsed, warnings=said)
