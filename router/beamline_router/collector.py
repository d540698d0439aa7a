"""How often Python's garbage collector looks, in a process that is a router and nothing else.

It looks for cycles among young objects whenever 700 more have been made than freed. A few hundred requests in
flight are thousands of objects, none of them garbage (a request leaves no cycle behind): each was looked at
several times in its short life, for 6 % of what a request cost. Above the number that is in flight the
collector looks only at what really stays. While a table is read it looks more often than ever, in small
pieces (:mod:`.edges.large_tables`).

Whoever embeds a router keeps the collector as it is.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 10_000
"""Objects between two collections of the youngest: what 256 requests in flight hold, some 40 each. To look
at so many takes two milliseconds.
"""


def look_rarely() -> None:
    """Sets the collector's first threshold to :data:`YOUNG`; the other two stay."""
    _, middle, old = gc.get_threshold()
    gc.set_threshold(YOUNG, middle, old)
