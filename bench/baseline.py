"""The baseline of the saturation row: plain nats-py and orjson, three requests one after the other, nothing
else.

``python -m bench.baseline URL IN_FLIGHT WARM_UP_S SECONDS SUBJECT...`` prints one JSON line.
"""

from __future__ import annotations

import asyncio
import sys
import time

import nats
import orjson

BODY = {"tenant_id": "acme", "prompt": "x" * 900, "parameters": {}, "context": {}}


async def main(url: str, in_flight: int, warm_up: float, seconds: float, subjects: list[str]) -> None:
    nc = await nats.connect(url)
    done, going = 0, True

    async def loop() -> None:
        nonlocal done
        while going:
            for subject in subjects:
                reply = await nc.request(subject, orjson.dumps(BODY), timeout=5)
                orjson.loads(reply.data)
            done += 1

    tasks = [asyncio.ensure_future(loop()) for _ in range(in_flight)]
    await asyncio.sleep(warm_up)
    before, began, cpu = done, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    figures = {
        "requests": done - before,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
    }
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")
    sys.stdout.flush()
    going = False
    await asyncio.gather(*tasks)
    await nc.close()


if __name__ == "__main__":
    import uvloop

    url, in_flight, warm_up, seconds, *subjects = sys.argv[1:]
    uvloop.run(main(url, int(in_flight), float(warm_up), float(seconds), subjects))
