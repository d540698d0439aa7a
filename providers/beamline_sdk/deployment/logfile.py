"""The log of one replica: what its process wrote, in a file that can't grow without bound."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson

MAX_BYTES: Final = 2 * 1024 * 1024
"""Size from which a log becomes ``NAME.log.1`` (whose predecessor goes) and starts afresh."""
_TAIL_LINES: Final = 20
_MESSAGE_CHARS: Final = 300


class LogFile:
    """Appends lines and remembers the last ones. A disk that is full costs log lines, not the process."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._size = path.stat().st_size if path.exists() else 0

    def write(self, line: bytes) -> None:
        """Appends one line; ``line`` may lack its line feed."""
        line = line.rstrip(b"\r\n")
        if line.strip():
            self._tail.append(line)
        with suppress(OSError):
            if self._size > 0 and self._size + len(line) + 1 > self._max_bytes:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                self._size = 0
            with self.path.open("ab") as file:
                file.write(line + b"\n")
            self._size += len(line) + 1

    def forget_tail(self) -> None:
        """Another process writes from here on."""
        self._tail.clear()

    @property
    def last_words(self) -> str:
        """The last line, or the last one that is an error, in words; empty where nothing was written."""
        said = [_in_words(line) for line in self._tail]
        errors = [words for words, is_error in said if is_error]
        return (errors or [words for words, _ in said] or [""])[-1][:_MESSAGE_CHARS]


def _in_words(line: bytes) -> tuple[str, bool]:
    """A JSON log line as ``event: error``, else the line; and whether it is of level error or above."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line.decode(errors="replace").strip(), False
    if not isinstance(entry, dict) or "event" not in entry:
        return line.decode(errors="replace").strip(), False
    detail = entry.get("error") or entry.get("reason") or entry.get("message")
    words = f"{entry['event']}: {detail}" if detail else str(entry["event"])
    return words, entry.get("level") in {"error", "critical"}
