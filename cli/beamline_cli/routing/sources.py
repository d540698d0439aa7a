"""The objects of a folder, laid over those that are there, as ``kubectl apply`` would lay them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from beamline_cli.faults import CliError, ExitCode
from beamline_contract.model import Fault, InvalidObjectError
from beamline_contract.objects import BeamlineObject, BrokenObject, ObjectKey, parse_metadata, parse_object
from beamline_contract.references import StoredObject
from beamline_operator.edges.manifests import Document, FileFault, read_file

Objects = dict[ObjectKey, StoredObject]


def live(documents: Iterable[Mapping[str, Any]]) -> Objects:
    """Objects as a cluster or a running ``beamline up`` shows them; one that breaks its rules is kept as
    broken.
    """
    found: Objects = {}
    for document in documents:
        try:
            stored: StoredObject = parse_object(document)
        except InvalidObjectError as error:
            metadata = parse_metadata(document["metadata"])
            stored = BrokenObject(document["kind"], metadata, error.faults, document.get("spec") or {})
        found[stored.key] = stored
    return found


def read(
    files: Iterable[Path], namespace: str, before: Mapping[ObjectKey, StoredObject]
) -> tuple[Objects, list[str]]:
    """The objects of ``files``, and the places of documents that are not of Beamline.

    ``namespace`` is for those that state none. An object that is there already keeps its identity, and its
    ``suspend`` where the file does not state it. Raises :class:`CliError` with every fault, also where the
    API server would refuse the change.
    """
    found: Objects = {}
    faults: list[FileFault] = []
    skipped: list[str] = []
    for file in files:
        content = read_file(file, str(file))
        faults.extend(content.faults)
        for document in content.documents:
            if not document.ours:
                skipped.append(f"{document.place}: {document.data.get('kind', 'document')}")
                continue
            parsed = _object(document, namespace, before)
            if isinstance(parsed, tuple):
                faults.extend(parsed)
            elif parsed.key in found:
                twice = Fault("metadata.name", f"{parsed.key} is defined twice")
                faults.extend(document.located([twice]))
            else:
                found[parsed.key] = parsed
    if faults:
        listed = "\n".join(map(str, faults))
        raise CliError(f"it can't be applied:\n{listed}", ExitCode.CONFIGURATION)
    return found, skipped


def _object(
    document: Document, namespace: str, before: Mapping[ObjectKey, StoredObject]
) -> BeamlineObject | tuple[FileFault, ...]:
    try:
        parsed = parse_object(document.data, default_namespace=namespace)
        there = before.get(parsed.key)
        if there is None:
            return parsed
        if isinstance(there, BrokenObject):
            return replace(parsed, metadata=there.metadata)
        parse_object(document.data, default_namespace=namespace, old=there)
    except InvalidObjectError as error:
        return document.located(error.faults)
    spec = parsed.spec
    if "suspend" not in (document.data.get("spec") or {}):
        spec = spec.model_copy(update={"suspend": there.spec.suspend})
    return replace(parsed, metadata=there.metadata, spec=spec)  # type: ignore[arg-type]  # of the same kind
