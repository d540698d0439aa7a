"""The configuration schemas of the extensions that run now, as they publish them over ``$SRV.INFO``.

Every :data:`SURVEY_S` all services are asked, in one message; whoever answers with an endpoint and a
``beamline.config_schema`` is remembered by the endpoint's subject. What has not answered for
:data:`FORGET_S` is forgotten: an extension that does not run says nothing about its configuration, and so
keeps nobody from changing it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

SURVEY_S: Final = 10.0
FORGET_S: Final = 35.0
MAX_SCHEMA_BYTES: Final = 64 * 1024
SUBJECT_INFO: Final = "$SRV.INFO"
METADATA_SCHEMA: Final = "beamline.config_schema"


class PublishedSchemas:
    """Schemas by subject. ``on_change`` hears the subject of each that is new, different or gone."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_change: Callable[[str], None] = lambda subject: None
        self._clock = clock
        self._known: dict[str, tuple[float, str, Mapping[str, Any]]] = {}

    def get(self, subject: str) -> Mapping[str, Any] | None:
        """The schema of the extension that listens on ``subject``; None where none is known."""
        found = self._known.get(subject)
        return None if found is None else found[2]

    def take(self, payload: bytes) -> None:
        """One answer; what can't be read is dropped."""
        for subject, text, schema in _published(payload):
            before = self._known.get(subject)
            self._known[subject] = (self._clock(), text, schema)
            if before is None or before[1] != text:
                self.on_change(subject)

    def forget_silent(self) -> None:
        """Forgets those that have not answered lately."""
        oldest = self._clock() - FORGET_S
        for subject, (seen, _, _) in list(self._known.items()):
            if seen < oldest:
                del self._known[subject]
                self.on_change(subject)

    async def survey(self, nc: Client) -> None:
        """Asks for ever; a connection that is away costs one round."""
        inbox = nc.new_inbox()
        await nc.subscribe(inbox, cb=self._on_answer)
        while True:
            with contextlib.suppress(nats_errors.Error, OSError):
                await nc.publish(SUBJECT_INFO, b"", reply=inbox)
            await asyncio.sleep(SURVEY_S)
            self.forget_silent()

    async def _on_answer(self, message: Msg) -> None:
        self.take(message.data)


def _published(payload: bytes) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    try:
        info = orjson.loads(payload)
        text = info["metadata"][METADATA_SCHEMA]
        if not isinstance(text, str) or len(text) > MAX_SCHEMA_BYTES:
            return
        schema = orjson.loads(text)
        subjects = [endpoint["subject"] for endpoint in info["endpoints"]]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return
    if isinstance(schema, dict):
        for subject in subjects:
            if isinstance(subject, str):
                yield subject, text, schema
