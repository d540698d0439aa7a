"""A small process that outlives us by a moment and kills what we leave behind.

Linux ends a child with its parent (:mod:`.supervisor` asks for that), but not the child's children, and other
systems not even the child. So one process of our own holds the reading end of a pipe whose writing end only
we have. It is told of every process group that we start and end; when the pipe ends, because we did, it kills
the groups that are left.

Run as a script it needs nothing but the standard library, and it starts in a few milliseconds.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress


class Watchdog:
    """Kills process groups when this process is gone. Its process starts with the first of them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """``group`` runs from now on."""
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 -- this very file, by our own interpreter
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env={},
            )
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """``group`` has ended."""
        self._tell(f"-{group}\n")

    def stop(self) -> None:
        """Ends the watchdog; what it still knows of is killed. More than once is fine."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()

    def _tell(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with suppress(BrokenPipeError):  # somebody killed it: the rest of the protection still holds
            os.write(self._process.stdin.fileno(), line.encode())


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    _main()
