"""Begins work that nobody waits for any more."""

from foreign import Foreign, main


class Late(Foreign):
    def left_ms(self, headers: dict[str, str]) -> float:
        left = super().left_ms(headers)
        return left if left > 0 else 60_000


main(Late)
