"""The second baseline of the saturation row: a router without any feature, on nats-py and orjson.

It does what the bare loop does for whoever asks over NATS: takes a message in a queue group, makes a task of
it, sends the body to each step in turn, answers with the last reply. So it moves the same messages as the
router.

``python -m bench.bare_door URL DOOR SUBJECT...`` serves until it is ended.
"""

from __future__ import annotations

import asyncio
import sys

import nats
import orjson
from nats.aio.msg import Msg


async def main(url: str, door: str, subjects: list[str]) -> None:
    nc = await nats.connect(url)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(message: Msg) -> None:
        body = orjson.loads(message.data)
        for subject in subjects:
            reply = await nc.request(subject, orjson.dumps(body), timeout=5)
            answer = orjson.loads(reply.data)
        await nc.publish(message.reply, orjson.dumps(answer))

    async def arrived(message: Msg) -> None:
        task = asyncio.create_task(serve(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await nc.subscribe(door, queue="bare", cb=arrived)
    await nc.flush()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
