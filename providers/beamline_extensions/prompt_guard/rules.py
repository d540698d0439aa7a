"""What prompt_guard forbids: phrases and patterns, compiled once per configuration.

All phrases are one RE2 expression, so a list of a thousand costs one pass. A phrase or pattern is named by
its
place in the configuration (``deny[3]``), never by its text: a reason reaches the caller, and a deny list is
nobody's business there.
"""

from __future__ import annotations

from typing import Any, Final

import re2

from .skeleton import joined, skeleton

SHORTEST_SPREAD: Final = 4
"""Letters below which a phrase is not looked for across separators: `a s` is too often by chance."""
_MEMORY: Final = 32 << 20
_KNOWN_ATTACKS: Final = (
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:previous|prior|above|earlier|preceding|all|your)\b"
    r".{0,40}\b(?:instructions?|prompts?|rules?|directions?|guidelines?)\b",
    r"\b(?:reveal|show|print|repeat|output|tell me)\b.{0,40}\b(?:your|the)\b.{0,20}"
    r"\b(?:system prompt|initial prompt|hidden instructions?|instructions above)\b",
    r"\byou are (?:now |from now on )?(?:dan|in developer mode|jailbroken|unrestricted)\b",
    r"\b(?:enable|enter|activate) (?:developer|dan|god|jailbreak) mode\b",
    r"\bpretend (?:that )?(?:you have|there are) no (?:rules|restrictions|guidelines|filters)\b",
    r"<\|(?:im_start|im_end|system|endoftext)\|>",
)


def compiled(expression: str) -> tuple[Any, str | None]:
    """The pattern, or what is wrong with it in RE2's words."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(expression, options), None
    except re2.error as error:
        words = error.args[0] if error.args else "refused"
        return None, words.decode(errors="replace") if isinstance(words, bytes) else str(words)


class Rules:
    """The deny list of one configuration."""

    def __init__(
        self,
        deny: tuple[str, ...],
        patterns: tuple[str, ...],
        *,
        known_attacks: bool,
        whole_words: bool,
        ignore_separators: bool,
    ) -> None:
        phrases: dict[str, int] = {}
        spread: dict[str, int] = {}
        for number, phrase in enumerate(deny):
            phrases.setdefault(skeleton(phrase), number)
            letters = joined(skeleton(phrase))
            if ignore_separators and len(letters) >= SHORTEST_SPREAD:
                spread.setdefault(letters, number)
        edges = (r"(?:^|[^\pL\pN_])", r"(?:$|[^\pL\pN_])") if whole_words else ("", "")
        self._phrases = _Phrases(phrases, *edges)
        self._spread = _Phrases(spread, "", "")
        self._patterns = [(f"deny_patterns[{n}]", compiled(one)[0]) for n, one in enumerate(patterns)]
        if known_attacks:
            self._patterns += [
                (f"known_attacks[{n}]", compiled(f"(?s){one}")[0]) for n, one in enumerate(_KNOWN_ATTACKS)
            ]

    @staticmethod
    def readable(phrase: str) -> bool:
        """Whether anything of ``phrase`` is left in its skeleton."""
        return bool(skeleton(phrase))

    def broken_by(self, text: str) -> str | None:
        """The first rule that ``text`` breaks, by its place in the configuration; None where it breaks
        none."""
        if not (self._phrases or self._spread or self._patterns):
            return None
        read = skeleton(text)
        number = self._phrases.first_in(read)
        if number is None and self._spread:
            number = self._spread.first_in(joined(read))
        if number is not None:
            return f"deny[{number}]"
        for name, pattern in self._patterns:
            if pattern.search(read) or (read != text and pattern.search(text)):
                return name
        return None


class _Phrases:
    """Phrases, each with its number, as one expression."""

    def __init__(self, phrases: dict[str, int], before: str, behind: str) -> None:
        self._numbers = phrases
        # The longest first: of two that begin alike, the whole one is named.
        longest_first = sorted(phrases, key=len, reverse=True)
        self._pattern = compiled(f"{before}({'|'.join(map(re2.escape, longest_first))}){behind}")[0]

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def first_in(self, read: str) -> int | None:
        if not self._numbers:
            return None
        found = self._pattern.search(read)
        return None if found is None else self._numbers[found.group(1)]
