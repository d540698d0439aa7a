"""What is under test, and the requests that it is sent.

Every request holds a *canary*, a word that stands nowhere else: where it appears in a log, a payload was
logged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any
from uuid import uuid4

from beamline_contract.names import SUBJECT_STEMS, ExtensionType, subject_fault


class TargetError(ValueError):
    """What is asked for can't be tested; the text is one sentence."""


@dataclass(frozen=True)
class Target:
    """One extension. ``config`` and ``prompt`` are what it can answer; ``slow`` makes a request take long.

    ``slow`` holds fields that are laid over a request, such as ``{"parameters": {"latency_ms": 2000}}``.
    None: ``latency_ms`` is sent as a parameter, and in the configuration where the extension's schema has it.
    """

    subject: str
    extension_id: str
    kind: ExtensionType
    config: dict[str, Any] = field(default_factory=dict)
    prompt: str = "Hello from the conformance suite"
    output: str | None = None
    """What a post step is given; None: the prompt."""
    slow: dict[str, Any] | None = None
    canary: str = field(default_factory=lambda: f"canary{token_hex(8)}")

    @classmethod
    def of(
        cls, subject: str, *, kind: ExtensionType | None = None, extension_id: str | None = None, **more: Any
    ) -> Target:
        """A target whose kind and id follow from the subject where they can. Raises :class:`TargetError`."""
        fault = subject_fault(subject)
        if fault is not None:
            raise TargetError(f"SUBJECT {fault}")
        tokens = subject.split(".")
        if kind is None:
            kind = next((one for one, stem in SUBJECT_STEMS.items() if subject.startswith(f"{stem}.")), None)
            if kind is None:
                raise TargetError(f"{subject} does not tell the kind of the extension: say it with --kind")
        if extension_id is None:
            versioned = tokens[-1].startswith("v") and tokens[-1][1:].isdigit()
            extension_id = tokens[-2] if versioned else tokens[-1]
        return cls(subject, extension_id, kind, **more)

    def request(self, text: str | None = None, **changes: Any) -> dict[str, Any]:
        """A request as a router sends it, with ids of its own; ``text`` is put behind the prompt."""
        words = " ".join(part for part in (self.prompt, self.canary, text) if part)
        made: dict[str, Any] = {
            "trace_id": uuid4().hex,
            "request_id": f"conformance-{token_hex(6)}",
            "tenant_id": "conformance",
            "extension_id": self.extension_id,
            "prompt": words,
            "parameters": {},
            "config": dict(self.config),
            "context": {},
        }
        if self.kind == "provider":
            made["provider_id"] = self.extension_id
        if self.kind == "post":
            made["output"] = words if self.output is None else self.output
            made["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return {**made, **changes}
