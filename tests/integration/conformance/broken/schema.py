"""Publishes no schema of its configuration."""

from foreign import Foreign, main


class Undescribed(Foreign):
    def metadata(self) -> dict[str, str]:
        found = super().metadata()
        del found["beamline.config_schema"]
        return found


main(Undescribed)
