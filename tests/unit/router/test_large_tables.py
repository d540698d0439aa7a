"""What keeps a reload of thousands of records from stopping the event loop."""

from __future__ import annotations

import gc

from beamline_router.core.slices import Sliced
from beamline_router.edges.large_tables import in_turns, taking_in


async def test_a_record_that_replaces_an_old_one_does_not_pile_up_young_objects() -> None:
    """Each freed object counts against a new one, so the collector itself would find nothing due."""
    table = [[number] for number in range(20_000)]
    gc.collect()
    most = 0

    def replacing() -> Sliced[None]:
        nonlocal most
        for at in range(len(table)):
            table[at] = [at]
            if at % 100 == 0:
                most = max(most, len(gc.get_objects(0)) + len(gc.get_objects(1)))
                yield

    with taking_in():
        await in_turns(replacing())
    assert most < 4_000
