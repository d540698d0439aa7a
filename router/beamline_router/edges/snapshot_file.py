"""The last good registry records in a file, for a start without PostgreSQL.

The file is a head line (schema version, SHA-256 of what follows) and one JSON document. It is written
beside and renamed into place, so a reader finds the old one or the new one, never half of one. A file that
is damaged, or of another schema version, is worth nothing: :func:`load` says why and the router waits for
the registry instead.

It holds records, not a compiled snapshot: what is compiled belongs to one version of the code.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

from beamline_contract.projection import ExtensionRecord, PolicyRecord

SCHEMA_VERSION: Final = 1
_MAGIC: Final = b"beamline-snapshot"


class SnapshotFileError(Exception):
    """The file can't be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a file holds. ``saved_at`` is Unix seconds."""

    revision: int
    saved_at: float
    extensions: tuple[ExtensionRecord, ...]
    policies: tuple[PolicyRecord, ...]


def save(
    path: Path,
    revision: int,
    extensions: Iterable[ExtensionRecord],
    policies: Iterable[PolicyRecord],
    *,
    wall: Callable[[], float] = time.time,
) -> None:
    """Replaces the file. Blocks (call it in a thread); raises :class:`OSError`."""
    document = orjson.dumps(
        {
            "revision": revision,
            "saved_at": wall(),
            "extensions": [asdict(record) for record in extensions],
            "policies": [asdict(record) for record in policies],
        }
    )
    digest = hashlib.sha256(document).hexdigest().encode()
    head = b"%s %d %s\n" % (_MAGIC, SCHEMA_VERSION, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(head)
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def load(path: Path) -> Saved | None:
    """What the file holds; None where there is no file. Raises :class:`SnapshotFileError`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotFileError(f"can't be read: {error.strerror or error}") from error
    head, _, document = raw.partition(b"\n")
    words = head.split(b" ")
    if len(words) != 3 or words[0] != _MAGIC:
        raise SnapshotFileError("is not a snapshot file")
    if words[1] != str(SCHEMA_VERSION).encode():
        raise SnapshotFileError(
            f"has schema version {words[1].decode('ascii', 'replace')}, this router reads {SCHEMA_VERSION}"
        )
    if hashlib.sha256(document).hexdigest().encode() != words[2]:
        raise SnapshotFileError("is damaged: its checksum does not match")
    try:
        data = orjson.loads(document)
        return Saved(
            revision=int(data["revision"]),
            saved_at=float(data["saved_at"]),
            extensions=tuple(ExtensionRecord(**record) for record in data["extensions"]),
            policies=tuple(PolicyRecord(**record) for record in data["policies"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotFileError(f"does not hold what its version promises: {error}") from error
