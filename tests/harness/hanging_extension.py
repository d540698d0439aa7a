"""Extensions that never answer and write down what became of each call: ``begun ID``, then how it ended.

python -m harness.hanging_extension KIND LOG
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from beamline_sdk import Config, ExtensionRequest, Patch, ProviderReply, Verdict, run
from beamline_sdk.extension import from_function

ANSWERS: dict[str, Any] = {
    "pre": Patch(),
    "validator": Verdict.ok(),
    "provider": ProviderReply("late"),
    "post": Patch(),
}


def main() -> None:
    kind, log = sys.argv[1], Path(sys.argv[2])

    def note(what: str, request: ExtensionRequest) -> None:
        with log.open("a") as file:
            file.write(f"{what} {request.request_id}\n")

    async def hang(request: ExtensionRequest, config: Config) -> Any:
        note("begun", request)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("cancelled", request)
            raise
        note("finished", request)
        return ANSWERS[kind]

    run(from_function(kind, hang, name="hang"))  # type: ignore[arg-type]  # one of the four


if __name__ == "__main__":
    main()
