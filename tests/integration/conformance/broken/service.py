"""Tells nobody what it is."""

from foreign import Foreign, main


class Nameless(Foreign):
    def metadata(self) -> dict[str, str]:
        return {**super().metadata(), "beamline.type": "gadget"}


main(Nameless)
