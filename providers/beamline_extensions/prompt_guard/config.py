"""Configuration of prompt_guard."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, field_validator

from beamline_sdk import Config

from .rules import Rules, compiled

Role = Literal["system", "developer", "user", "assistant", "tool"]


class PromptGuardConfig(Config):
    """Settings of prompt_guard."""

    deny: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=1_000)
    ] = ()
    """Words and phrases that a prompt must not hold. Case, accents, look-alike letters of other alphabets,
    invisible characters and the number of blanks make no difference.
    """
    deny_patterns: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=500)], ...], Field(max_length=100)
    ] = ()
    """Regular expressions (RE2) that a prompt must not match, as it was sent or as `deny` reads it: small
    letters, no accents.
    """
    known_attacks: bool = False
    """Also refuse the usual wordings of attempts to override instructions; English only, and by far not
    all."""
    whole_words: bool = True
    """An entry of `deny` is found between word boundaries only: `ass` is not in `class`."""
    ignore_separators: bool = False
    """Also find entries of `deny` (4 letters or more) whose letters are spread: `i.g.n.o.r.e`; never by
    whole words."""
    roles: Annotated[tuple[Role, ...], Field(max_length=5)] = ()
    """Messages of which roles `deny` and patterns are applied to; all where empty. A plain prompt always
    is."""
    max_characters: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    """Characters of all texts together."""
    max_message_characters: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    """Characters of one message."""
    max_messages: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Messages in a request."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """Estimated tokens of all texts: their UTF-8 bytes divided by 4."""
    block_on_match: bool = True
    """Refuse the request; false lets it pass and annotates it with the rule."""

    @field_validator("deny_patterns")
    @classmethod
    def _patterns_compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, expression in enumerate(value):
            fault = compiled(expression)[1]
            if fault is not None:
                raise ValueError(f"entry {number} is not a regular expression of RE2: {fault}")
        return value

    @field_validator("deny")
    @classmethod
    def _something_is_left(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, phrase in enumerate(value):
            if not Rules.readable(phrase):
                raise ValueError(f"entry {number} holds nothing that can be read")
        return value

    @cached_property
    def rules(self) -> Rules:
        """What is forbidden, compiled once per configuration."""
        return Rules(
            self.deny,
            self.deny_patterns,
            known_attacks=self.known_attacks,
            whole_words=self.whole_words,
            ignore_separators=self.ignore_separators,
        )
