"""Logs of a running ``beamline up``: its files, with the one before each, and what is added to them.

A file that has grown to its bound becomes ``NAME.log.1`` and starts afresh. Who follows it reads what is left
of the old file through the handle that it holds, then opens the new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from .log_lines import written_at

SERVERS: Final = {"postgresql": "postgres.log", "postgres": "postgres.log", "nats": "nats.log"}
COMPONENTS: Final = {"router": "router.log", "admin": "admin.log"}


def files_of(folder: Path, namespace: str | None, extension: str) -> list[Path]:
    """The logs of an extension's replicas, in their order."""
    found = [
        path
        for path in folder.glob(f"*.{extension}.*.log")
        if path.name.split(".")[1] == extension and namespace in {None, path.name.split(".")[0]}
    ]
    return sorted(found, key=lambda path: (path.name.split(".")[0], int(path.name.split(".")[2])))


def kept(path: Path, since: datetime | None, tail: int | None) -> tuple[list[bytes], int]:
    """What stands in a log and in the one before it, oldest first, and how many bytes of the log that is, for
    who goes on there. Of the lines those from ``since`` on, of these the last ``tail``.

    A line without a time belongs to the line before it.
    """
    before, now = (_content(file) for file in (path.with_name(path.name + ".1"), path))
    lines = [*before.splitlines(), *now.splitlines()]
    if since is not None:
        lines = list(_from(lines, since))
    shown = lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]
    return shown, len(now)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


class Follower:
    """What is added to a log after its first ``start`` bytes. ``look`` is called again and again."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._open(start)

    def look(self) -> Iterator[bytes]:
        """Whole lines that are new."""
        if self._file is None:
            self._open(0)
        if self._file is None:
            return
        yield from self._read(self._file)
        if self._replaced(self._file):
            yield from self._read(self._file)  # what came between the two
            self.close()
            self._open(0)
            if self._file is not None:
                yield from self._read(self._file)

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, file: BinaryIO) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + file.read()).split(b"\n")
        yield from lines

    def _open(self, start: int) -> None:
        try:
            self._file = self._path.open("rb")
        except OSError:
            return
        if os.fstat(self._file.fileno()).st_size >= start:  # else it was begun afresh meanwhile
            self._file.seek(start)

    def _replaced(self, file: BinaryIO) -> bool:
        try:
            return not os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


def follow(
    followers: dict[str, Follower], show: Callable[[str, bytes], None], pause: Callable[[], bool]
) -> None:
    """Shows what is added until ``pause``, called between two looks, answers False; closes the followers."""
    try:
        going = True
        while going:
            going = pause()
            for name, follower in followers.items():
                for line in follower.look():
                    show(name, line)
    finally:
        for follower in followers.values():
            follower.close()


def _from(lines: list[bytes], since: datetime) -> Iterator[bytes]:
    wanted = False
    for line in lines:
        at = written_at(line)
        wanted = wanted if at is None else at >= since
        if wanted:
            yield line
