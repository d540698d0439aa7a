"""Logs what it was asked."""

from typing import Any

from foreign import Foreign, main


class Chatty(Foreign):
    def note(self, request: dict[str, Any]) -> None:
        print("asked:", request.get("prompt"), flush=True)


main(Chatty)
