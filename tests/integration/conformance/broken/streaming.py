"""Sends without looking at the reader's window."""

from foreign import Foreign, main


class Flood(Foreign):
    async def room_for(self, control: str, sent: int, window: int) -> None:
        pass


main(Flood)
