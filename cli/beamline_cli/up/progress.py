"""What ``beamline up`` tells the person at the terminal: a line per step with its time, then a line per
happening.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from beamline_cli.output import paint, say, table


class Progress:
    """Lines on stdout. Until :meth:`follow` they carry seconds since the start, after it the time of day."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._following = False

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def follow(self) -> None:
        """The start is over."""
        self._following = True

    def line(self, what: str, text: str, colour: str | None = None) -> None:
        """One line: what it is about, and what became of it."""
        if self._following:
            stamp = datetime.now().astimezone().strftime("%H:%M:%S")
        else:
            stamp = f"{self.seconds:6.2f} s"
        say(f"{paint(stamp, 'dim')}  {what:<12} {paint(text, colour)}")

    @contextmanager
    def step(self, what: str, text: str) -> Iterator[None]:
        """A line when the block is done, with how long it took."""
        started = time.monotonic()
        yield
        self.line(what, f"{text} ({(time.monotonic() - started) * 1000:.0f} ms)")

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[str | None]
    ) -> None:
        """A table; each row in its colour."""
        head, *lines = table(header, rows, indent="  ")
        say(paint(head, "bold"))
        for line, colour in zip(lines, colours, strict=True):
            say(paint(line, colour))
