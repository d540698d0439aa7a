"""Acts on running routers on their way into the audit log: noted by the leader, before they are done.

Whoever asks waits for the answer, so the note is written at once and not with the next health report. A
process that does not lead answers nothing: another one may.
"""

from __future__ import annotations

from typing import Final

import structlog
from pydantic import ValidationError

from beamline_contract.acts import ActNoted, RouterAct
from beamline_registry.port import InvalidRecordError, Note, Outcome, RegistryError

from ..core.batcher import Batcher

MAX_BYTES: Final = 256 * 1024

_log = structlog.get_logger()


class Acts:
    """Notes acts through the batcher of the reconcile core, so under the leader's epoch."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    async def __call__(self, payload: bytes) -> ActNoted:
        """The answer to one message; never raises but for a cancellation."""
        try:
            if len(payload) > MAX_BYTES:
                return ActNoted(error="INVALID_ARGUMENT", message="the message is too large")
            act = RouterAct.model_validate_json(payload)
        except ValidationError as error:
            return ActNoted(error="INVALID_ARGUMENT", message=f"{error.error_count()} fields are wrong")
        note = Note("Extension", act.extension_id, act.changes(), act.changed_by, act.request_id)
        try:
            (result,) = await self._batcher.submit(note)
        except InvalidRecordError as error:
            return ActNoted(error="INVALID_ARGUMENT", message=str(error))
        except RegistryError as error:
            _log.warning("act.not_noted", extension_id=act.extension_id, verb=act.verb, error=str(error))
            return ActNoted(error="UNAVAILABLE", message="the registry does not answer")
        if result.outcome is not Outcome.NOTED:
            return ActNoted(error="NOT_FOUND", message="the registry knows no such extension")
        _log.info(
            "act.noted",
            extension_id=act.extension_id,
            verb=act.verb,
            changed_by=act.changed_by,
            request_id=act.request_id,
        )
        return ActNoted()
