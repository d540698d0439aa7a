"""A provider that writes down every execution: when it ran, and until when its caller was waiting.

Run as a process of its own; ``RECORD`` names the file. One line per execution: request id, Unix milliseconds
at the start of the work, and the deadline that the request carried (0 for none).
"""

from __future__ import annotations

import os
import time

from beamline_sdk.extension import ExtensionRequest, ProviderReply, provider
from beamline_sdk.runtime import run

RECORD = open(os.environ["RECORD"], "a", buffering=1)  # noqa: SIM115 -- open for the life of the process


@provider(name="recording_provider")
async def record(request: ExtensionRequest, config: dict[str, object]) -> ProviderReply:
    deadline = int(request.headers.get("Beamline-Deadline-At", "0"))
    RECORD.write(f"{request.request_id} {time.time() * 1000:.1f} {deadline}\n")
    return ProviderReply(output=f"recorded {request.prompt}")


if __name__ == "__main__":
    run(record)
