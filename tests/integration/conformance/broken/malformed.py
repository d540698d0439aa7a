"""Ends where a message is no JSON."""

import json
import os

from foreign import Foreign, main
from nats.aio.msg import Msg


class Fragile(Foreign):
    async def answer(self, message: Msg) -> None:
        try:
            json.loads(message.data)
        except json.JSONDecodeError:
            if message.data.startswith(b"hello"):
                os._exit(3)
        await super().answer(message)


main(Fragile)
