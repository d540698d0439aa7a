"""The NATS services protocol (ADR-32): what an extension answers on ``$SRV.PING``, ``$SRV.INFO`` and
``$SRV.STATS``.

nats-py ships a service of its own, which does not fit: it works on one request at a time, ends without
draining, and sends the text of exceptions to the caller. So the protocol is spoken here, over the runtime's
own subscription. These subjects have no queue group: every instance answers for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Final, Literal

import orjson

from beamline_contract import __version__

from .answers import CallStats
from .extension import Extension, Provider

Verb = Literal["PING", "INFO", "STATS"]
VERBS: Final[tuple[Verb, ...]] = ("PING", "INFO", "STATS")
ENDPOINT: Final = "handle"


@dataclass
class Service:
    """One running instance, as the protocol describes it. ``instance`` is unique per process start."""

    extension: Extension[Any, Any]
    extension_id: str
    subject: str
    queue_group: str
    stats: CallStats
    instance: str = field(default_factory=lambda: token_hex(11))
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat().replace("+00:00", "Z"))

    def subjects(self) -> list[tuple[str, Verb]]:
        """Where to listen: for all services, for this name, for this instance."""
        return [
            (".".join(["$SRV", verb, *tail]), verb)
            for verb in VERBS
            for tail in ((), (self.extension_id,), (self.extension_id, self.instance))
        ]

    def answer(self, verb: Verb) -> bytes:
        """The reply to ``verb``."""
        body: dict[str, Any] = {
            "type": f"io.nats.micro.v1.{verb.lower()}_response",
            "name": self.extension_id,
            "id": self.instance,
            "version": self.extension.version,
            "metadata": {"beamline.type": self.extension.kind, "beamline.extension": self.extension.name},
        }
        if isinstance(self.extension, Provider) and type(self.extension).stream is not Provider.stream:
            body["metadata"]["beamline.streams"] = "true"
        endpoint: dict[str, Any] = {
            "name": ENDPOINT,
            "subject": self.subject,
            "queue_group": self.queue_group,
        }
        if verb == "INFO":
            body["description"] = self.extension.description
            body["metadata"] |= {
                "beamline.sdk": __version__,
                "beamline.config_schema": orjson.dumps(self.extension.config_schema()).decode(),
            }
            body["endpoints"] = [endpoint | {"metadata": {}}]
        elif verb == "STATS":
            requests = self.stats.requests
            body["started"] = self.started
            body["endpoints"] = [
                endpoint
                | {
                    "num_requests": requests,
                    "num_errors": self.stats.errors,
                    "last_error": self.stats.last_error,
                    "processing_time": self.stats.processing_ns,
                    "average_processing_time": self.stats.processing_ns // requests if requests else 0,
                }
            ]
        return orjson.dumps(body)
