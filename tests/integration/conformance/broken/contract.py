"""Counts tokens in words."""

from typing import Any

from foreign import Foreign, main


class Wordy(Foreign):
    def result(self, request: dict[str, Any]) -> dict[str, Any]:
        found = super().result(request)
        if isinstance(request.get("messages"), list):
            found["usage"] = {"tokens": "three"}
        return found


main(Wordy)
