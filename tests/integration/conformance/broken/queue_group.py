"""Subscribes without a queue group."""

from foreign import Foreign, main


class Everyone(Foreign):
    queue = ""


main(Everyone)
