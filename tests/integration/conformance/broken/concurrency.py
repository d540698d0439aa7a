"""Works on one message after the other."""

import asyncio
from typing import Any

from foreign import Foreign, main


class Serial(Foreign):
    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Lock()

    async def bounded(self, request: dict[str, Any], left_ms: float) -> None:
        async with self.turn:
            await super().bounded(request, left_ms)


main(Serial)
