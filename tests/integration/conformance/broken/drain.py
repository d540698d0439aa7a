"""Leaves at once."""

from typing import Any

from foreign import Foreign, main


class Hasty(Foreign):
    async def leave(self, nc: Any, subscription: Any) -> None:
        await nc.close()


main(Hasty)
