"""Publishes answers of any size."""

import json
from typing import Any

from foreign import Foreign, main


class Unbounded(Foreign):
    def encoded(self, body: dict[str, Any]) -> bytes:
        return json.dumps(body).encode()


main(Unbounded)
