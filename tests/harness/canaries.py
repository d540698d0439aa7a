"""Finding canaries: words that must not appear where a test looks."""

from __future__ import annotations

import re


def leaks(places: dict[str, str], words: dict[str, str]) -> list[str]:
    """``where: what`` of each canary that was found, however its blanks were written."""
    found = []
    for where, text in places.items():
        plain = re.sub(r"[ \-]", "", text).lower()
        found += [
            f"{where}: {what}" for what, word in words.items() if re.sub(r"[ \-]", "", word).lower() in plain
        ]
    return found
