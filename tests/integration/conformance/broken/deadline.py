"""Takes as long as it takes."""

from typing import Any

from foreign import Foreign, main


class Unhurried(Foreign):
    async def bounded(self, request: dict[str, Any], left_ms: float) -> None:
        await self.work(request)


main(Unhurried)
