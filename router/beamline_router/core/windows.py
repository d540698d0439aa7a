"""Post steps on a stream: what may leave before the whole answer is known.

A post step sees text and answers changed text, and nobody but the step knows which part of the one became
which part of the other. So the step itself is asked whether a place is safe to cut: with a window of text W,
the beginning A = W[:c] may leave when

    step(W) == step(A) + step(W[c:])   and at least REACH characters of W lie behind c.

REACH is the step's own word: the longest piece of text, with what it must see on either side, that it treats
as one (``max_match_length`` in its replies). Whatever begins before c then lies wholly inside W, so the step
has seen it; if it crossed c, or if what stands before c mattered to what stands behind, the two sides would
differ. So with a true word the result is exact: what leaves is what the step would have made of the whole
answer, wherever the stream was cut. A step that gives no word gets the whole answer, and so does one that
says ``hold``, or whose reach is longer than an answer may be.

Where a place is not safe earlier ones are tried, and else more text is waited for. A step that changes the
answer as a whole (a footer, a summary) never agrees to a cut: its answer leaves at the end, in one piece. A
step's error ends the stream before the text it was asked about has left: blocking holds across chunks as
masking does. Several steps are several windows, one behind the other (:class:`Chain`), because what one step
has shortened says nothing about how far the next one looks.

The cost: a window is looked at again only after it has grown by a quarter, and by at least STEP characters,
so an answer of n characters costs O(n) characters of post-step work.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from beamline_contract.errors import WireError
from beamline_contract.wire import MAX_REPLY_BYTES

FIRST_LOOK: Final = 384
"""Characters after which a step is first asked, and says how far it looks: the longest e-mail address
(RFC 5321: 64 + 1 + 255), and STEP.
"""
STEP: Final = 64
"""A window is looked at again when it has grown by this many characters."""
WHOLE: Final = MAX_REPLY_BYTES
"""The reach of a step that must see the whole answer."""
_TRIES: Final = 4
_NEVER: Final = sys.maxsize


@dataclass(frozen=True, slots=True)
class Looked:
    """``text`` after a step. ``reach`` is how far the step looks, in characters; None where it did not answer
    and its failure is open.
    """

    text: str
    reach: int | None


Apply = Callable[[str], Awaitable[Looked | WireError]]
"""One post step on one text."""


class Window:
    """The text of one stream that has not left yet, in front of one post step."""

    def __init__(self, apply: Apply, *, step: int = STEP) -> None:
        self._apply = apply
        self._step = step
        self._reach: int | None = None
        self._look_at = FIRST_LOOK
        self._text = ""

    @property
    def held(self) -> int:
        """Characters that have come and not left."""
        return len(self._text)

    async def feed(self, text: str) -> str | WireError:
        """Takes more of the answer; returns what may leave now, which is often nothing."""
        self._text += text
        if len(self._text) < self._look_at:
            return ""
        cut = await self._cut()
        if isinstance(cut, WireError):
            return cut
        held, reach = len(self._text), self._reach
        if reach is not None and reach >= WHOLE:
            self._look_at = _NEVER
        elif cut is not None:
            self._look_at = max(reach or 0, held) + self._step
        else:
            self._look_at = max((reach or 0) + self._step, held + max(self._step, held // 4))
        return cut or ""

    async def finish(self, more: str = "") -> str | WireError:
        """The rest, with the last of the answer: nothing can change any more, so the step is asked once."""
        text, self._text = self._text + more, ""
        if not text:
            return ""
        looked = await self._apply(text)
        return looked if isinstance(looked, WireError) else looked.text

    def reset(self) -> None:
        """Drops what is held: another attempt begins."""
        self._text = ""
        self._look_at = max(FIRST_LOOK, self._reach or 0)

    async def _cut(self) -> str | WireError | None:
        """What may leave; None where no place is safe."""
        text = self._text
        whole = await self._look(text)
        if isinstance(whole, WireError):
            return whole
        if self._reach is None or self._reach >= WHOLE:
            return None
        for place in _places(len(text) - self._reach):
            before = await self._look(text[:place])
            if isinstance(before, WireError):
                return before
            if not whole.startswith(before):
                continue
            behind = await self._look(text[place:])
            if isinstance(behind, WireError):
                return behind
            if before + behind == whole and len(text) - place >= self._reach:
                self._text = text[place:]
                return before
        return None

    async def _look(self, text: str) -> str | WireError:
        looked = await self._apply(text)
        if isinstance(looked, WireError):
            return looked
        if looked.reach is not None:
            self._reach = max(self._reach or 0, looked.reach)
        return looked.text


class Chain:
    """Windows one behind the other; without any, text passes at once. ``on_reset`` is called with
    :meth:`reset`.
    """

    def __init__(self, windows: Sequence[Window] = (), *, on_reset: Callable[[], None] | None = None) -> None:
        self._windows = tuple(windows)
        self._on_reset = on_reset

    async def feed(self, text: str) -> str | WireError:
        """Takes more of the answer; returns what may leave now, which is often nothing."""
        for window in self._windows:
            if not text:
                break
            after = await window.feed(text)
            if isinstance(after, WireError):
                return after
            text = after
        return text

    async def finish(self) -> str | WireError:
        """The rest."""
        text = ""
        for window in self._windows:
            rest = await window.finish(text)
            if isinstance(rest, WireError):
                return rest
            text = rest
        return text

    def reset(self) -> None:
        """Drops what is held: another attempt begins."""
        for window in self._windows:
            window.reset()
        if self._on_reset is not None:
            self._on_reset()


def _places(latest: int) -> list[int]:
    """Where a cut is tried: as late as allowed, then earlier, each place once."""
    tried = [latest * (_TRIES - number) // _TRIES for number in range(_TRIES)]
    return [place for place in dict.fromkeys(tried) if place > 0]
