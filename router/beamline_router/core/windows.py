"""Post steps on a stream: what may leave before the whole answer is known.

A post step sees text and answers changed text, and nobody but the step knows which part of the one became
which part of the other. So the step itself is asked whether a place is safe to cut: with a window of text W,
the beginning A = W[:c] may leave when

    step(W) == step(A) + step(W[c:])   and at least TAIL characters of W lie behind c.

Whatever begins before c and is at most TAIL characters long lies wholly inside W, so the step has seen it;
if it crossed c, or if what stands before c mattered to what stands behind, the two sides would differ. Then
earlier places are tried, and else more text is waited for. A step that changes the answer as a whole (a
footer, a summary) never agrees to a cut: its answer leaves at the end, in one piece. A step's error ends the
stream before the text it was asked about has left: blocking holds across chunks as masking does.

The cost: a window is looked at again only after it has grown by a quarter, and by at least STEP characters,
so an answer of n characters costs O(n) characters of post-step work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from beamline_contract.errors import WireError

TAIL: Final = 320
"""Characters held back: the longest e-mail address (RFC 5321: 64 + 1 + 255), the longest thing detectors
know.
"""
STEP: Final = 64
"""A window is looked at again when it has grown by this many characters."""
_TRIES: Final = 4

Apply = Callable[[str], Awaitable[str | WireError]]
"""The post steps, in order, on one text."""


class Window:
    """The text of one stream that has not left yet. ``apply`` is None where there are no post steps."""

    def __init__(self, apply: Apply | None, *, tail: int = TAIL, step: int = STEP) -> None:
        self._apply = apply
        self._tail = tail
        self._step = step
        self._look_at = tail + step
        self._text = ""

    @property
    def held(self) -> int:
        """Characters that have come and not left."""
        return len(self._text)

    async def feed(self, text: str) -> str | WireError:
        """Takes more of the answer; returns what may leave now, which is often nothing."""
        if self._apply is None:
            return text
        self._text += text
        if len(self._text) < self._look_at:
            return ""
        cut = await self._cut(self._apply)
        if isinstance(cut, str):
            self._look_at = max(self._tail, len(self._text)) + self._step
        elif cut is None:
            self._look_at = len(self._text) + max(self._step, len(self._text) // 4)
            return ""
        return cut

    async def finish(self) -> str | WireError:
        """The rest: nothing can change any more."""
        text, self._text = self._text, ""
        return text if self._apply is None or not text else await self._apply(text)

    def reset(self) -> None:
        """Drops what is held: another attempt begins."""
        self._text = ""
        self._look_at = self._tail + self._step

    async def _cut(self, apply: Apply) -> str | WireError | None:
        text = self._text
        whole = await apply(text)
        if isinstance(whole, WireError):
            return whole
        latest = len(text) - self._tail
        for place in _places(latest):
            before = await apply(text[:place])
            if isinstance(before, WireError):
                return before
            if not whole.startswith(before):
                continue
            behind = await apply(text[place:])
            if isinstance(behind, WireError):
                return behind
            if before + behind == whole:
                self._text = text[place:]
                return before
        return None


def _places(latest: int) -> list[int]:
    """Where a cut is tried: as late as allowed, then earlier, each place once."""
    tried = [latest * (_TRIES - number) // _TRIES for number in range(_TRIES)]
    return [place for place in dict.fromkeys(tried) if place > 0]
