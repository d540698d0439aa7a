"""Answers with what another request brought."""

import asyncio
from typing import Any

from foreign import Foreign, main


class Shared(Foreign):
    async def bounded(self, request: dict[str, Any], left_ms: float) -> None:
        self.latest = request
        await asyncio.sleep(0)
        await super().bounded(request, left_ms)

    def result(self, request: dict[str, Any]) -> dict[str, Any]:
        return super().result({**request, "prompt": getattr(self, "latest", request).get("prompt")})


main(Shared)
