"""Drops the trace context."""

from foreign import Foreign, main


class Untraced(Foreign):
    def trace(self, headers: dict[str, str]) -> dict[str, str]:
        return {}


main(Untraced)
