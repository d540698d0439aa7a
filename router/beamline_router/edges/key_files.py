"""API keys and limits from files, reread when they change.

A source is a file, or a folder as Kubernetes mounts a Secret: every file in it whose name has no leading dot.
Once a second its files are looked at (names, sizes, times, inodes: a Secret's update swaps a symbolic link),
and read when something differs; SIGHUP reads at once. At the start a fault ends the process with a sentence.
Later, a fault is one line in the log and the last good content serves on: half a file that an editor has just
begun to write must not lock everybody out. A file that goes away in a folder takes its keys along; where
the source itself goes away, the last good content stays.

Everything runs on the event loop; the files are small, and reading them costs less than a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog
import yaml

log = structlog.get_logger()

LOOK_S: Final = 1.0
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_Signature = tuple[tuple[str, int, int, int], ...]
_T = TypeVar("_T")


class SourceError(ValueError):
    """The source can't be used; one sentence that names the file."""


class Watched(Generic[_T]):
    """``value``: what ``read`` makes of the documents, as (file name, content) each.

    ``read`` raises :class:`ValueError` with a sentence for what it can't take. ``fault`` is the last one,
    None while the files are good.
    """

    def __init__(self, what: str, path: Path, read: Callable[[list[tuple[str, object]]], _T]) -> None:
        self._what = what
        self._path = path
        self._read = read
        self._signature: _Signature = ()
        self.fault: str | None = None
        self.value: _T = self._load()

    def look(self, *, anew: bool = False) -> bool:
        """Reads the files if they have changed, or ``anew``; True where a new value holds."""
        try:
            if not anew and self._stat() == self._signature:
                return False
            self.value = self._load()
        except SourceError as error:
            if self.fault != str(error):
                self.fault = str(error)
                # No traceback: it would quote the file.
                log.warning("settings.not_reread", what=self._what, error=self.fault, serving="last good")
            return False
        self.fault = None
        log.info("settings.reread", what=self._what, path=str(self._path))
        return True

    async def run(self, changed: Callable[[], None]) -> None:
        """Looks every second until cancelled; ``changed`` hears of each new value."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self.look():
                changed()

    def _files(self) -> list[Path]:
        try:
            if not self._path.is_dir():
                return [self._path]
            return sorted(
                found for found in self._path.iterdir() if not found.name.startswith(".") and found.is_file()
            )
        except OSError as error:
            raise SourceError(f"{self._path} can't be read: {error.strerror or error}") from error

    def _stat(self) -> _Signature:
        try:
            stats = [(found.name, found.stat()) for found in self._files()]
        except OSError as error:
            raise SourceError(f"{self._path} can't be read: {error.strerror or error}") from error
        return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)

    def _load(self) -> _T:
        signature = self._stat()  # taken first: what changes while we read is seen by the next look
        documents: list[tuple[str, object]] = []
        for found in self._files():
            try:
                if found.stat().st_size > MAX_FILE_BYTES:
                    raise SourceError(f"{found} is larger than {MAX_FILE_BYTES} bytes")
                text = found.read_text(encoding="utf-8")
            except OSError as error:
                raise SourceError(f"{found} can't be read: {error.strerror or error}") from error
            except UnicodeDecodeError as error:
                raise SourceError(f"{found} is not UTF-8") from error
            documents.append((str(found), _parsed(found, text)))
        try:
            value = self._read(documents)
        except ValueError as error:
            raise SourceError(str(error)) from error
        self._signature = signature
        return value


def _parsed(found: Path, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except Exception as error:  # noqa: BLE001 -- PyYAML raises what its values do: a 13th month, `!!bool x`
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}"
        # The parser's own words quote the file, which holds hashes.
        raise SourceError(f"{found} is not YAML{place}") from None
