"""Reads its configuration at the start and never again."""

from typing import Any

from foreign import Foreign, main


class Stubborn(Foreign):
    def checked_config(self, request: dict[str, Any]) -> None:
        pass


main(Stubborn)
