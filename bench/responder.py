"""A step that costs nothing: answers every message on a subject with the same bytes. A process of its own.

``python -m bench.responder URL SUBJECT QUEUE REPLY`` prints "ready", and at SIGTERM how often it answered.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from bench.wire import Wire


async def serve(url: str, subject: str, queue: str, reply: bytes) -> None:
    answered = 0

    def answer(_subject: bytes, inbox: bytes, _payload: bytes) -> None:
        nonlocal answered
        if inbox:
            answered += 1
            wire.publish(inbox, b"", reply)

    wire = await Wire.connect(url, answer)
    wire.subscribe(subject, queue)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, wire.close)
    await wire.ended
    sys.stdout.write(f'{{"answered":{answered}}}\n')


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].encode()))
