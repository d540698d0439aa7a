"""Long lists: the first rows with the page, the rest when somebody scrolls there.

Without a script there are links to the next and the previous rows. With one, ``static/list.js`` keeps only
the rows near the window in the document and asks for others with ``part=rows``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

FIRST: Final = 50
"""Rows of the first answer, and of each that follows."""
Item = TypeVar("Item")


class RowsQuery(BaseModel):
    """Search and place of a list. What is not known is ignored: an old link still shows something."""

    q: Annotated[str, Field(max_length=253)] = ""
    offset: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    part: Literal["rows"] | None = None


@dataclass(frozen=True, slots=True)
class Rows(Generic[Item]):
    """Some rows of a list. ``offset`` counts from 0."""

    items: Sequence[Item]
    offset: int
    total: int

    @classmethod
    def of(cls, everything: Sequence[Item], query: RowsQuery) -> Rows[Item]:
        """The rows that ``query`` asks for; the last ones where it asks for more than there are."""
        offset = min(query.offset, max(0, len(everything) - 1)) // FIRST * FIRST
        return cls(everything[offset : offset + FIRST], offset, len(everything))

    @property
    def next(self) -> int | None:
        """Offset of the rows that follow."""
        after = self.offset + FIRST
        return after if after < self.total else None

    @property
    def previous(self) -> int | None:
        """Offset of the rows before."""
        return max(0, self.offset - FIRST) if self.offset else None
